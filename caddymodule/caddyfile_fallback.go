package caddymodule

import (
	"math"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// parseFallback reads the option `fallback` of feature_route.
func parseFallback(d *caddyfile.Dispenser) (*Fallback, error) {
	f := new(Fallback)
	switch args := d.RemainingArgs(); {
	case len(args) == 1 && args[0] == "all":
		f.All = true
	case len(args) > 0:
		return nil, d.Errf("fallback: want nothing or `all` (send any request again, whatever its method), got %q", strings.Join(args, " "))
	}
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return nil, d.Errf("fallback: %s: is given twice", option)
		}
		seen[option] = true
		args := d.RemainingArgs()
		if err := noBlock(d, option); err != nil {
			return nil, err
		}
		var err error
		switch option {
		case "methods":
			if f.All {
				return nil, d.Err("fallback: methods: `all` already says that any may be sent again")
			}
			f.Methods, err = args, someArgs(d, option, "one or more methods", args)
			for i := range args {
				args[i] = strings.ToUpper(args[i])
			}
		case "body":
			f.Body, err = fallbackBody(d, args)
		case "budget":
			f.Budget, err = fallbackBudget(d, args)
		case "on":
			f.On, err = statuses(d, args)
		case "after":
			if len(args) != 1 {
				return nil, d.Errf("fallback: after: want a duration as 2s, got %d arguments", len(args))
			}
			after, bad := caddy.ParseDuration(args[0])
			if bad != nil || after <= 0 {
				return nil, d.Errf("fallback: after: want a duration above 0 as 2s, got %q", args[0])
			}
			f.After = caddy.Duration(after)
		default:
			return nil, unknownOption(d, "fallback", option, "methods", "body", "budget", "on", "after")
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func someArgs(d *caddyfile.Dispenser, option, want string, args []string) error {
	if len(args) == 0 {
		return d.Errf("fallback: %s: want %s", option, want)
	}
	return nil
}

func fallbackBody(d *caddyfile.Dispenser, args []string) (int64, error) {
	if len(args) == 1 && args[0] == "off" {
		return -1, nil
	}
	if len(args) == 1 {
		if n, err := humanize.ParseBytes(args[0]); err == nil && n >= 1 && n <= mostBody {
			return int64(n), nil
		}
	}
	return 0, d.Errf("fallback: body: want a size from 1B to 16MiB as 64KiB, or off, got %q", strings.Join(args, " "))
}

func fallbackBudget(d *caddyfile.Dispenser, args []string) (*FallbackBudget, error) {
	const want = "fallback: budget: want a percentage of the requests that go to off by themselves, and perhaps how many more a second, as 20%% 10; got %q"
	if len(args) < 1 || len(args) > 2 {
		return nil, d.Errf(want, strings.Join(args, " "))
	}
	b := &FallbackBudget{PerSecond: 10}
	text, isPercent := strings.CutSuffix(args[0], "%")
	ratio, err := strconv.ParseFloat(text, 64)
	if !isPercent || err != nil || !(ratio >= 0) || math.IsInf(ratio, 0) {
		return nil, d.Errf(want, strings.Join(args, " "))
	}
	b.Ratio = ratio / 100
	if len(args) == 2 {
		if b.PerSecond, err = strconv.ParseFloat(args[1], 64); err != nil || !(b.PerSecond >= 0) || math.IsInf(b.PerSecond, 0) {
			return nil, d.Errf(want, strings.Join(args, " "))
		}
	}
	return b, nil
}

// statuses reads 502 or 5xx.
func statuses(d *caddyfile.Dispenser, args []string) (out []int, err error) {
	for _, arg := range args {
		n, err := strconv.Atoi(strings.TrimSuffix(arg, "xx"))
		if short := strings.HasSuffix(arg, "xx"); err != nil || short && n != 4 && n != 5 || !short && (n < 400 || n > 599) {
			return nil, d.Errf("fallback: on: want statuses as 5xx or 502, from 400 to 599, got %q", arg)
		}
		out = append(out, n)
	}
	return out, someArgs(d, "on", "one or more statuses as 5xx or 502", args)
}
