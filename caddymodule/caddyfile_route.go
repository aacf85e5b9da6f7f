package caddymodule

import (
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// parseRoute reads the directive
//
//	feature_route [<matcher>] <flag> {
//		on             { <directives...> }
//		off            { <directives...> }
//		variant <name> { <directives...> }
//		fallback [all] {
//			methods <names...>
//			body    <size>|off
//			budget  <percent> [<per_second>]
//			on      <statuses...>
//			after   <duration>
//		}
//		mirror <percent> {
//			timeout     <duration>
//			concurrency <number>
//			body
//		}
//		pin <duration>
//		vary off
//	}
func parseRoute(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	rt := new(Route)
	h.Next() // the directive's name
	args := h.RemainingArgs()
	if len(args) != 1 {
		return nil, h.Errf("feature_route: want the name of one flag, got %d arguments", len(args))
	}
	rt.Flag = args[0]
	seen := map[string]bool{}
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		option := h.Val()
		switch option {
		case evaluator.On, evaluator.Off, "variant":
			name := option
			if option == "variant" {
				if !h.Args(&name) {
					return nil, h.Err("variant: want the name of a variant and a block")
				}
			}
			if seen[name] {
				return nil, h.Errf("%s: is given twice", name)
			}
			seen[name] = true
			routes, err := parseWay(h, name)
			if err != nil {
				return nil, err
			}
			switch name {
			case evaluator.On:
				rt.On = routes
			case evaluator.Off:
				rt.Off = routes
			default:
				if rt.Variants == nil {
					rt.Variants = map[string]caddyhttp.RouteList{}
				}
				rt.Variants[name] = routes
			}
		case "fallback":
			if rt.Fallback != nil {
				return nil, h.Err("fallback: is given twice")
			}
			var err error
			if rt.Fallback, err = parseFallback(h.Dispenser); err != nil {
				return nil, err
			}
		case "mirror":
			if rt.Mirror != nil {
				return nil, h.Err("mirror: is given twice")
			}
			var err error
			if rt.Mirror, err = parseMirror(h.Dispenser); err != nil {
				return nil, err
			}
		case "pin":
			if rt.Pin != 0 {
				return nil, h.Err("pin: is given twice")
			}
			if err := durationOption(h.Dispenser, option, &rt.Pin); err != nil {
				return nil, err
			}
			if length := time.Duration(rt.Pin); length < shortestPin || length > longestPin {
				return nil, h.Errf("pin: want a duration from 1s to 24h, got %s", length)
			}
		case "vary":
			if args := h.RemainingArgs(); len(args) != 1 || args[0] != "off" {
				return nil, h.Errf("vary: want off, got %q", args)
			}
			rt.NoVary = true
		default:
			return nil, unknownOption(h.Dispenser, "feature_route", option, "on", "off", "variant", "fallback", "mirror", "pin", "vary")
		}
	}
	if len(seen) == 0 {
		return nil, h.Errf("feature_route %s: want `on`, `off` or both", rt.Flag)
	}
	return rt, nil
}

// parseWay reads the directives of one way.
func parseWay(h httpcaddyfile.Helper, name string) (caddyhttp.RouteList, error) {
	if h.NextArg() {
		return nil, h.Errf("%s: want a block of directives, unexpected %q", name, h.Val())
	}
	handler, err := httpcaddyfile.ParseSegmentAsSubroute(h.WithDispenser(h.NewFromNextSegment()))
	if err != nil {
		return nil, err
	}
	sub, ok := handler.(*caddyhttp.Subroute)
	if !ok {
		return nil, h.Errf("%s: want a block of directives", name)
	}
	return sub.Routes, nil
}

func countOption(d *caddyfile.Dispenser, option string, into *int) error {
	var text string
	if err := one(d, option, "a number", &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("%s: want a number of 1 or more, got %q", option, text)
	}
	*into = n
	return nil
}
