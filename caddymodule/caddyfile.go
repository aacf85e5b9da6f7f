package caddymodule

import (
	"slices"
	"strings"

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
