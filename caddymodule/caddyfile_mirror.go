package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parseMirror reads the option `mirror` of feature_route.
func parseMirror(d *caddyfile.Dispenser) (*Mirror, error) {
	m := new(Mirror)
	args := d.RemainingArgs()
	if len(args) != 1 {
		return nil, d.Errf("mirror: want a percentage of the requests as 5%%, got %q", strings.Join(args, " "))
	}
	ratio, ok := percentage(args[0])
	if !ok || ratio == 0 || ratio > 1 {
		return nil, d.Errf("mirror: want a percentage above 0%%, at most 100%%, got %q", args[0])
	}
	m.Ratio = ratio
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return nil, d.Errf("mirror: %s: is given twice", option)
		}
		seen[option] = true
		switch option {
		case "timeout":
			if err := timeLimit(d, "mirror: timeout", "5s", &m.Timeout); err != nil {
				return nil, err
			}
		case "concurrency":
			if err := countOption(d, "mirror: concurrency", &m.Concurrency); err != nil {
				return nil, err
			}
		case "body":
			if err := set(d, "mirror: body", &m.Body); err != nil {
				return nil, err
			}
		default:
			return nil, unknownOption(d, "mirror", option, "timeout", "concurrency", "body")
		}
	}
	return m, nil
}
