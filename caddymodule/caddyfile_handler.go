package caddymodule

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive
//
//	feature_flags [<matcher>] {
//		context {
//			<attribute> header|cookie|query|jwt|value <key>
//			<attribute> user_agent
//			user_id     sticky
//		}
//		jwt {
//			from       header|cookie|query <name>
//			secret     <secret>
//			public_key <files...>
//			jwks       <url or file>
//			algorithms <names...>
//			issuer     <issuer>
//			audience   <audiences...>
//			leeway     <duration>
//			on_invalid anonymous|reject
//			cache      <tokens>
//		}
//		flags   <names...>
//		headers <prefix> [on_only]
//		headers list <name>
//		headers off
//		vary
//		propagate {
//			key <secrets...>
//			ttl <duration>
//			baggage
//		}
//		trust {
//			key <secrets...>
//		}
//		override {
//			key <secrets...>
//		}
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("feature_flags: unexpected argument %q; the features file is named in the global option of the same name", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "context":
			err = h.parseContext(d)
		case "jwt":
			err = h.parseJWT(d)
		case "flags":
			err = some(d, option, "the names of flags", &h.Flags)
		case "headers":
			err = h.parseHeaders(d)
		case "vary":
			err = set(d, option, &h.Vary)
		case "propagate":
			if h.Propagate != nil {
				return d.Err("propagate: is given twice")
			}
			h.Propagate, err = parsePropagate(d)
		case "trust":
			if h.Trust != nil {
				return d.Err("trust: is given twice")
			}
			h.Trust = new(Trust)
			h.Trust.Keys, err = parseKeys(d, option)
		case "override":
			if h.Override != nil {
				return d.Err("override: is given twice")
			}
			h.Override = new(Override)
			h.Override.Keys, err = parseKeys(d, option)
		default:
			err = unknownOption(d, "feature_flags", option, "context", "jwt", "flags", "headers", "vary", "propagate", "trust", "override")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) parseContext(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("context: unexpected argument %q", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		s := AttributeSource{Attribute: d.Val()}
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.Errf("context: %s: want where it comes from: header, cookie, query, jwt, user_agent, value or sticky", s.Attribute)
		}
		s.From = args[0]
		kind, known := sourceKinds[s.From]
		if !known {
			return d.Errf("context: %s: unknown source %q; want header, cookie, query, jwt, user_agent, value or sticky", s.Attribute, s.From)
		}
		want := 2
		if kind == fromUserAgent || kind == fromSticky {
			want = 1
		}
		if len(args) != want {
			return d.Errf("context: %s: %s takes %d argument(s), got %d", s.Attribute, s.From, want-1, len(args)-1)
		}
		if want == 2 {
			s.Key = args[1]
		}
		h.Context = append(h.Context, s)
		if err := noBlock(d, s.Attribute); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) parseHeaders(d *caddyfile.Dispenser) error {
	if h.Headers != nil {
		return d.Err("headers: is given twice")
	}
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == "off":
		h.Headers = &Headers{Mode: "off"}
	case len(args) == 2 && args[0] == "list":
		h.Headers = &Headers{Mode: "list", Name: args[1]}
	case len(args) == 2 && args[1] == "on_only":
		h.Headers = &Headers{Mode: "on_only", Name: args[0]}
	case len(args) == 1 && args[0] != "list":
		h.Headers = &Headers{Mode: "each", Name: args[0]}
	default:
		return d.Errf("headers: want a prefix, a prefix and `on_only`, `list` and a name, or `off`; got %q", args)
	}
	return noBlock(d, "headers")
}

func (h *Handler) parseJWT(d *caddyfile.Dispenser) error {
	if h.JWT != nil {
		return d.Err("jwt: is given twice")
	}
	if d.NextArg() {
		return d.Errf("jwt: unexpected argument %q", d.Val())
	}
	j := new(JWT)
	h.JWT = j
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "from":
			err = j.parseFrom(d)
		case "secret":
			err = one(d, option, "a secret, as {env.JWT_SECRET}", &j.Secret)
		case "public_key":
			err = some(d, option, "PEM files", &j.PublicKeys)
		case "jwks":
			err = one(d, option, "an address or a file", &j.JWKS)
		case "algorithms":
			err = some(d, option, "names, as RS256", &j.Algorithms)
		case "issuer":
			err = one(d, option, "an issuer", &j.Issuer)
		case "audience":
			err = some(d, option, "audiences", &j.Audience)
		case "leeway":
			err = durationOption(d, option, &j.Leeway)
		case "on_invalid":
			if err = one(d, option, "anonymous or reject", &j.OnInvalid); err == nil && j.OnInvalid != "anonymous" && j.OnInvalid != "reject" {
				err = d.Errf("on_invalid: want anonymous or reject, got %q", j.OnInvalid)
			}
		case "cache":
			err = countOption(d, option, &j.Cache)
		default:
			err = unknownOption(d, "jwt", option, "from", "secret", "public_key", "jwks", "algorithms", "issuer", "audience", "leeway", "on_invalid", "cache")
		}
		if err != nil {
			return err
		}
	}
	if j.Secret == "" && len(j.PublicKeys) == 0 && j.JWKS == "" {
		return d.Err("jwt: want one of secret, public_key, jwks")
	}
	return nil
}

func (j *JWT) parseFrom(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 || args[0] != "header" && args[0] != "cookie" && args[0] != "query" {
		return d.Errf("from: want header, cookie or query, and a name; got %q", args)
	}
	j.From = append(j.From, TokenPlace{In: args[0], Name: args[1]})
	return noBlock(d, "from")
}

func durationOption(d *caddyfile.Dispenser, option string, into *caddy.Duration) error {
	var text string
	if err := one(d, option, "a duration as 30s", &text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil || v < 0 {
		return d.Errf("%s: want a duration as 30s, got %q", option, text)
	}
	*into = caddy.Duration(v)
	return nil
}
