package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("feature_flags_console", parseConsole)
	httpcaddyfile.RegisterDirectiveOrder("feature_flags_console", httpcaddyfile.After, "templates")
}

// parseConsole reads the directive with its matcher: a path is the console's base.
func parseConsole(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	handler := new(Console)
	h.Next()
	if h.NextArg() && strings.HasPrefix(h.Val(), "/") {
		handler.Base = strings.TrimSuffix(strings.TrimSuffix(h.Val(), "*"), "/")
		h.Delete()
	}
	h.Reset()
	h.Next()
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, handler), nil
}

// UnmarshalCaddyfile reads the directive
//
//	feature_flags_console [<path>] {
//		authenticated
//	}
func (c *Console) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("feature_flags_console: unexpected argument %q; options are in a block", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "authenticated":
			if d.NextArg() {
				return d.Errf("authenticated: takes no argument, got %q", d.Val())
			}
			c.Authenticated = true
			if err := noBlock(d, option); err != nil {
				return err
			}
		default:
			return unknownOption(d, "feature_flags_console", option, "authenticated")
		}
	}
	return nil
}
