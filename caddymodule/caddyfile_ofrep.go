package caddymodule

import (
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("feature_flags_ofrep", parseOFREP)
	httpcaddyfile.RegisterDirectiveOrder("feature_flags_ofrep", httpcaddyfile.After, "templates")
}

const wantOrigins = "origins as https://app.example"

func parseOFREP(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(OFREP)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive
//
//	feature_flags_ofrep [<matcher>] {
//		cors       <origins...>
//		accept     <attributes...>
//		rate_limit <requests> [<window>]
//		max_body   <size>
//		streams    <number>|off
//		key        <secrets...>
//	}
func (o *OFREP) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := noArgument(d, "feature_flags_ofrep"); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "cors":
			err = some(d, option, wantOrigins, (*[]string)(&o.CORS))
		case "accept":
			err = some(d, option, "the names of attributes", &o.Accept)
		case "rate_limit":
			err = parseRateLimit(d, &o.RateLimit)
		case "max_body":
			err = parseSize(d, option, &o.MaxBody)
		case "streams":
			err = o.parseStreams(d)
		case "key":
			err = some(d, option, wantKeys, &o.Keys)
		default:
			err = unknownOption(d, "feature_flags_ofrep", option, "cors", "accept", "rate_limit", "max_body", "streams", "key")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *OFREP) parseStreams(d *caddyfile.Dispenser) error {
	var text string
	if o.Streams != 0 {
		return d.Err("streams: is given twice")
	}
	if err := one(d, "streams", "a number or off", &text); err != nil {
		return err
	}
	if text == "off" {
		o.Streams = -1
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1_000_000 {
		return d.Errf("streams: want a number from 1 to 1000000, or off, got %q", text)
	}
	o.Streams = n
	return nil
}

// parseRateLimit reads the option rate_limit.
func parseRateLimit(d *caddyfile.Dispenser, into **RateLimit) error {
	if *into != nil {
		return d.Err("rate_limit: is given twice")
	}
	args := d.RemainingArgs()
	if len(args) == 1 && args[0] == "off" {
		*into = &RateLimit{}
		return noBlock(d, "rate_limit")
	}
	if len(args) < 1 || len(args) > 2 {
		return d.Errf("rate_limit: want a number of requests and a window as 100 1s, or off, got %d arguments", len(args))
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > 1_000_000 {
		return d.Errf("rate_limit: want a number from 1 to 1000000, or off, got %q", args[0])
	}
	limit := &RateLimit{Requests: n}
	if len(args) == 2 {
		window, err := caddy.ParseDuration(args[1])
		if err != nil || window < time.Millisecond || window > 24*time.Hour {
			return d.Errf("rate_limit: want a window from 1ms to 24h as 1m, got %q", args[1])
		}
		limit.Window = caddy.Duration(window)
	}
	*into = limit
	return noBlock(d, "rate_limit")
}

// parseSize reads a size in bytes.
func parseSize(d *caddyfile.Dispenser, option string, into *int64) error {
	if *into != 0 {
		return d.Errf("%s: is given twice", option)
	}
	var text string
	if err := one(d, option, "a size as 64KB", &text); err != nil {
		return err
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size < 1 || size > 1<<30 {
		return d.Errf("%s: want a size from 1 byte to 1GiB as 64KB, got %q", option, text)
	}
	*into = int64(size)
	return nil
}
