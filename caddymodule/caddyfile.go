package caddymodule

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("feature_flags", parseGlobal)
	httpcaddyfile.RegisterHandlerDirective("feature_flags", parseHandler)
	httpcaddyfile.RegisterDirectiveOrder("feature_flags", httpcaddyfile.After, "forward_auth")
	httpcaddyfile.RegisterHandlerDirective("feature_route", parseRoute)
	httpcaddyfile.RegisterDirectiveOrder("feature_route", httpcaddyfile.Before, "reverse_proxy")
}

// one reads exactly one argument of an option.
func one(d *caddyfile.Dispenser, option, want string, into *string) error {
	args := d.RemainingArgs()
	switch {
	case len(args) != 1:
		return d.Errf("%s: want %s, got %d arguments", option, want, len(args))
	case *into != "":
		return d.Errf("%s: is given twice", option) // without the values: one may be a secret
	}
	*into = args[0]
	return noBlock(d, option)
}

// some reads one or more arguments of an option.
func some(d *caddyfile.Dispenser, option, want string, into *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("%s: want %s", option, want)
	}
	*into = append(*into, args...)
	return noBlock(d, option)
}

// noArgument refuses arguments of a directive.
func noArgument(d *caddyfile.Dispenser, directive string) error {
	if d.NextArg() {
		return d.Errf("%s: unexpected argument %q; options are in a block", directive, d.Val())
	}
	return nil
}

// set sets what an option without arguments stands for.
func set(d *caddyfile.Dispenser, option string, into *bool) error {
	if d.NextArg() {
		return d.Errf("%s: takes no argument, got %q", option, d.Val())
	}
	*into = true
	return noBlock(d, option)
}

// header adds a header's name and value.
func header(d *caddyfile.Dispenser, option string, into *http.Header) error {
	args := d.RemainingArgs()
	if len(args) != 2 { // without the values: one may be a secret
		return d.Errf("%s: want a name and a value as Authorization \"Bearer {env.TOKEN}\", got %d arguments", option, len(args))
	}
	if *into == nil {
		*into = http.Header{}
	}
	into.Add(args[0], args[1])
	return noBlock(d, option)
}

// leadingPath takes a path that stands in the place of a matcher, if is says that it
// is one; "" where there is none.
func leadingPath(h httpcaddyfile.Helper, is func(text string) bool) (path string) {
	h.Next() // the directive's name
	if h.NextArg() && strings.HasPrefix(h.Val(), "/") && is(h.Val()) {
		path = h.Val()
		h.Delete()
	}
	h.Reset()
	h.Next()
	return path
}

// timeLimit reads a duration above 0 as an option's only argument.
func timeLimit(d *caddyfile.Dispenser, option, example string, into *caddy.Duration) error {
	var text string
	if err := one(d, option, "a duration as "+example, &text); err != nil {
		return err
	}
	limit, err := caddy.ParseDuration(text)
	if err != nil || limit <= 0 {
		return d.Errf("%s: want a duration above 0 as %s, got %q", option, example, text)
	}
	*into = caddy.Duration(limit)
	return nil
}

// percentage reads 12.5% as 0.125; ok is false for what is none, or negative.
func percentage(text string) (ratio float64, ok bool) {
	number, isPercent := strings.CutSuffix(text, "%")
	ratio, err := strconv.ParseFloat(number, 64)
	return ratio / 100, isPercent && err == nil && ratio >= 0 && !math.IsInf(ratio, 0)
}

// noBlock refuses a block behind an option that has none.
func noBlock(d *caddyfile.Dispenser, option string) error {
	if d.NextBlock(d.Nesting()) {
		return d.Errf("%s: has no block; unexpected %q", option, d.Val())
	}
	return nil
}

// unknownOption names what would do.
func unknownOption(d *caddyfile.Dispenser, where, option string, known ...string) error {
	slices.Sort(known)
	return d.Errf("%s: unknown option %q; want %s", where, option, strings.Join(known, ", "))
}
