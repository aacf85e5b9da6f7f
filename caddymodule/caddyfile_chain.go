package caddymodule

import "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

// parsePropagate reads the option `propagate` of feature_flags.
func parsePropagate(d *caddyfile.Dispenser) (*Propagate, error) {
	p := new(Propagate)
	if d.NextArg() {
		return nil, d.Errf("propagate: unexpected argument %q; want a block with `key`", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "key":
			err = some(d, "propagate: key", wantKeys, &p.Keys)
		case "ttl":
			err = durationOption(d, "propagate: ttl", &p.TTL)
		case "baggage":
			err = set(d, "propagate: baggage", &p.Baggage)
		default:
			err = unknownOption(d, "propagate", option, "key", "ttl", "baggage")
		}
		if err != nil {
			return nil, err
		}
	}
	if len(p.Keys) == 0 {
		return nil, d.Err("propagate: key: want " + wantKeys)
	}
	return p, nil
}

// parseKeys reads a block that holds nothing but keys.
func parseKeys(d *caddyfile.Dispenser, block string) (keys []string, err error) {
	if d.NextArg() {
		return nil, d.Errf("%s: unexpected argument %q; want a block with `key`", block, d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if option := d.Val(); option != "key" {
			return nil, unknownOption(d, block, option, "key")
		}
		if err := some(d, block+": key", wantKeys, &keys); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, d.Errf("%s: key: want %s", block, wantKeys)
	}
	return keys, nil
}

const wantKeys = "one or more secrets, as {env.FEATURE_FLAGS_KEY}"
