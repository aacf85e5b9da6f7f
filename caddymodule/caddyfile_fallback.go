package caddymodule

import (
	"math"
	"strconv"
	"strings"

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
		var err error
		switch option {
		case "methods":
			if f.All {
				return nil, d.Err("fallback: methods: `all` already says that any may be sent again")
			}
			err = some(d, "fallback: methods", "one or more methods", &f.Methods)
			for i := range f.Methods {
				f.Methods[i] = strings.ToUpper(f.Methods[i])
			}
		case "body":
			f.Body, err = fallbackBody(d)
		case "budget":
			f.Budget, err = fallbackBudget(d)
		case "on":
			f.On, err = statuses(d)
		case "after":
			err = timeLimit(d, "fallback: after", "2s", &f.After)
		default:
			return nil, unknownOption(d, "fallback", option, "methods", "body", "budget", "on", "after")
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func fallbackBody(d *caddyfile.Dispenser) (int64, error) {
	args := d.RemainingArgs()
	if len(args) == 1 && args[0] == "off" {
		return -1, noBlock(d, "fallback: body")
	}
	if len(args) == 1 {
		if n, err := humanize.ParseBytes(args[0]); err == nil && n >= 1 && n <= mostBody {
			return int64(n), noBlock(d, "fallback: body")
		}
	}
	return 0, d.Errf("fallback: body: want a size from 1B to 16MiB as 64KiB, or off, got %q", strings.Join(args, " "))
}

func fallbackBudget(d *caddyfile.Dispenser) (*FallbackBudget, error) {
	const want = "fallback: budget: want a percentage of the requests that go to off by themselves, and perhaps how many more a second, as 20%% 10; got %q"
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return nil, d.Errf(want, strings.Join(args, " "))
	}
	ratio, ok := percentage(args[0])
	if !ok {
		return nil, d.Errf(want, strings.Join(args, " "))
	}
	b := &FallbackBudget{Ratio: ratio, PerSecond: 10}
	if len(args) == 2 {
		var err error
		if b.PerSecond, err = strconv.ParseFloat(args[1], 64); err != nil || !(b.PerSecond >= 0) || math.IsInf(b.PerSecond, 0) {
			return nil, d.Errf(want, strings.Join(args, " "))
		}
	}
	return b, noBlock(d, "fallback: budget")
}

// statuses reads 502 or 5xx.
func statuses(d *caddyfile.Dispenser) (out []int, err error) {
	var args []string
	if err := some(d, "fallback: on", "one or more statuses as 5xx or 502", &args); err != nil {
		return nil, err
	}
	for _, arg := range args {
		n, err := strconv.Atoi(strings.TrimSuffix(arg, "xx"))
		if short := strings.HasSuffix(arg, "xx"); err != nil || short && n != 4 && n != 5 || !short && (n < 400 || n > 599) {
			return nil, d.Errf("fallback: on: want statuses as 5xx or 502, from 400 to 599, got %q", arg)
		}
		out = append(out, n)
	}
	return out, nil
}
