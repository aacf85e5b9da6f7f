package caddymodule

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("feature_flags_feedback", parseFeedback)
	httpcaddyfile.RegisterDirectiveOrder("feature_flags_feedback", httpcaddyfile.After, "templates")
}

// parseFeedback reads the directive with its matcher: a path is the handler's own.
func parseFeedback(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	handler := &Feedback{Path: leadingPath(h, func(text string) bool { return !strings.Contains(text, "*") })}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	if matcher != nil {
		handler.Path = anyPath
	}
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, handler), nil
}

// UnmarshalCaddyfile reads the directive
//
//	feature_flags_feedback [<matcher>] {
//		cors        <origins...>
//		rate_limit  <requests> [<window>]|off
//		max_comment <characters>
//		thanks      <address>
//	}
func (f *Feedback) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := noArgument(d, "feature_flags_feedback"); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "cors":
			err = some(d, option, wantOrigins, (*[]string)(&f.CORS))
		case "rate_limit":
			err = parseRateLimit(d, &f.RateLimit)
		case "max_comment":
			err = f.parseMaxComment(d)
		case "thanks":
			err = one(d, option, "an address as /thanks", &f.Thanks)
		default:
			err = unknownOption(d, "feature_flags_feedback", option, "cors", "rate_limit", "max_comment", "thanks")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Feedback) parseMaxComment(d *caddyfile.Dispenser) error {
	if f.MaxComment != 0 {
		return d.Err("max_comment: is given twice")
	}
	var text string
	if err := one(d, "max_comment", "a number of characters", &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > mostComment {
		return d.Errf("max_comment: want a number from 1 to %d, got %q", mostComment, text)
	}
	f.MaxComment = n
	return nil
}
