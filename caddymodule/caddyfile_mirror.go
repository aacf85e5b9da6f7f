package caddymodule

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parseMirror reads the option `mirror` of feature_route.
func parseMirror(d *caddyfile.Dispenser) (*Mirror, error) {
	m := new(Mirror)
	args := d.RemainingArgs()
	if len(args) != 1 {
		return nil, d.Errf("mirror: want a percentage of the requests as 5%%, got %q", strings.Join(args, " "))
	}
	text, isPercent := strings.CutSuffix(args[0], "%")
	percentage, err := strconv.ParseFloat(text, 64)
	if !isPercent || err != nil || !(percentage > 0 && percentage <= 100) {
		return nil, d.Errf("mirror: want a percentage above 0%%, at most 100%%, got %q", args[0])
	}
	m.Ratio = percentage / 100
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return nil, d.Errf("mirror: %s: is given twice", option)
		}
		seen[option] = true
		switch option {
		case "timeout":
			var text string
			if err := one(d, "mirror: timeout", "a duration as 5s", &text); err != nil {
				return nil, err
			}
			timeout, err := caddy.ParseDuration(text)
			if err != nil || timeout <= 0 {
				return nil, d.Errf("mirror: timeout: want a duration above 0 as 5s, got %q", text)
			}
			m.Timeout = caddy.Duration(timeout)
		case "concurrency":
			if err := countOption(d, "mirror: concurrency", &m.Concurrency); err != nil {
				return nil, err
			}
		case "body":
			if d.NextArg() {
				return nil, d.Errf("mirror: body: takes no argument, got %q", d.Val())
			}
			if err := noBlock(d, option); err != nil {
				return nil, err
			}
			m.Body = true
		default:
			return nil, unknownOption(d, "mirror", option, "timeout", "concurrency", "body")
		}
	}
	return m, nil
}
