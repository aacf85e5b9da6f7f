package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("feature_flags_console", parseConsole)
	httpcaddyfile.RegisterDirectiveOrder("feature_flags_console", httpcaddyfile.After, "templates")
}

// parseConsole reads the directive with its matcher: a path is the console's base.
func parseConsole(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	handler := &Console{Base: consoleBase(leadingPath(h, func(string) bool { return true }))}
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
	if err := noArgument(d, "feature_flags_console"); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "authenticated":
			err = set(d, option, &c.Authenticated)
		default:
			err = unknownOption(d, "feature_flags_console", option, "authenticated")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
