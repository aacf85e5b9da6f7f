package caddymodule

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// Policy chooses among the upstreams of one reverse_proxy by a flag: the
// cheapest way to split traffic, where both ways share a transport. Of several
// upstreams that go with a decision an available one is chosen at random. Where
// none is, the canary's request goes to `off` and the failure is counted
// against the canary.
//
// The site needs a feature_flags handler, which times the requests.
type Policy struct {
	// Flag that decides.
	Flag string `json:"flag"`

	// On are the dial addresses of those the flag is on for.
	On []string `json:"on"`

	// Off are the dial addresses of everybody else.
	Off []string `json:"off"`

	// Variants are the dial addresses of single variants; those without go to
	// On.
	Variants map[string][]string `json:"variants,omitempty"`

	app *App
}

// CaddyModule returns the module's information.
func (*Policy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.selection_policies.feature", New: func() caddy.Module { return new(Policy) }}
}

// Provision finds the app and brings addresses into the form in which
// reverse_proxy keeps them.
func (p *Policy) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	p.app = app
	switch {
	case p.Flag == "":
		return fmt.Errorf("lb_policy feature: want the name of a flag")
	case len(p.On) == 0 && len(p.Variants) == 0:
		return fmt.Errorf("lb_policy feature %s: on: want at least one upstream", p.Flag)
	case len(p.Off) == 0:
		return fmt.Errorf("lb_policy feature %s: off: want at least one upstream", p.Flag)
	}
	app.mention("lb_policy feature", []string{p.Flag})
	for _, list := range p.lists() {
		for i := range list {
			if list[i], err = dialAddress(list[i]); err != nil {
				return fmt.Errorf("lb_policy feature %s: %w", p.Flag, err)
			}
		}
	}
	return nil
}

func (p *Policy) lists() [][]string {
	all := [][]string{p.On, p.Off}
	for _, v := range p.Variants {
		all = append(all, v)
	}
	return all
}

// dialAddress gives an upstream's address as reverse_proxy's `to` does.
func dialAddress(s string) (string, error) {
	if scheme, _, found := strings.Cut(s, "://"); found {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return "", fmt.Errorf("upstream %q: want host:port", s)
		}
		port := u.Port()
		if port == "" {
			if port = "80"; scheme == "https" {
				port = "443"
			}
		}
		return u.Hostname() + ":" + port, nil
	}
	if !strings.Contains(s, ":") && !strings.Contains(s, "/") && !strings.Contains(s, "{") {
		return s + ":80", nil
	}
	return s, nil
}

// Select is part of reverseproxy.Selector.
func (p *Policy) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	chosen, canary, rq, i := p.choose(r, w)
	if u := p.pick(pool, chosen); u != nil || !canary {
		return u
	}
	if rq.eval.Decide(i).Detail == testerDetail {
		return nil // testers see it
	}
	// The canary has nobody to serve it. Its users are served by the old way,
	// and the flag is told.
	p.app.quiet.warn(time.Now(), "no_upstream", "no upstream of the canary is available; served by off", zap.String("flag", p.Flag), zap.Strings("on", chosen))
	rq.unavailable(i)
	return p.pick(pool, p.Off)
}

func (p *Policy) choose(r *http.Request, w http.ResponseWriter) (chosen []string, canary bool, rq *request, i int) {
	chosen, i = p.Off, -1
	defer p.app.survive("choosing an upstream")
	rq = requestOf(r)
	if rq == nil {
		rq = newRequest(p.app, r)
		rq.readSticky(r, false)
		p.app.quiet.warn(rq.arrival, "policy_alone", "lb_policy feature has no feature_flags handler in its site: the context is empty and nothing is timed")
	}
	if rq.header == nil && w != nil {
		rq.header = w.Header()
	}
	if i = rq.rules.Index(p.Flag); i < 0 {
		return p.Off, false, rq, i
	}
	d := rq.decide(i)
	rq.varyBy(i)
	if v, ok := p.Variants[d.Variant]; ok {
		return v, d.Enabled, rq, i
	}
	if d.Enabled && len(p.On) > 0 {
		return p.On, true, rq, i
	}
	if d.Enabled {
		p.app.quiet.warn(rq.arrival, "unlisted_variant", "lb_policy feature has neither this variant nor `on`; served by off", zap.String("flag", p.Flag), zap.String("variant", d.Variant))
	}
	return p.Off, false, rq, i
}

// pick takes an available upstream with one of the addresses, at random.
func (p *Policy) pick(pool reverseproxy.UpstreamPool, addresses []string) *reverseproxy.Upstream {
	var found *reverseproxy.Upstream
	n, known := 0, false
	for _, u := range pool {
		if !slices.Contains(addresses, u.Dial) && !slices.Contains(addresses, u.String()) {
			continue
		}
		known = true
		if !u.Available() {
			continue
		}
		if n++; n == 1 || rand.IntN(n) == 0 {
			found = u
		}
	}
	if !known {
		p.app.quiet.warn(time.Now(), "unknown_upstream", "lb_policy feature names upstreams that its reverse_proxy does not have", zap.String("flag", p.Flag), zap.Strings("wanted", addresses))
	}
	return found
}

// UnmarshalCaddyfile reads
//
//	lb_policy feature <flag> {
//		on      <upstreams...>
//		off     <upstreams...>
//		variant <name> <upstreams...>
//	}
func (p *Policy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the policy's name
	if !d.Args(&p.Flag) {
		return d.Err("lb_policy feature: want the name of a flag")
	}
	if d.NextArg() {
		return d.Errf("lb_policy feature: one flag; unexpected %q", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		args := d.RemainingArgs()
		if err := noBlock(d, option); err != nil {
			return err
		}
		switch option {
		case evaluator.On, evaluator.Off:
			list := &p.On
			if option == evaluator.Off {
				list = &p.Off
			}
			if len(args) == 0 {
				return d.Errf("%s: want one or more upstreams", option)
			}
			*list = append(*list, args...)
		case "variant":
			if len(args) < 2 {
				return d.Err("variant: want a name and one or more upstreams")
			}
			if p.Variants == nil {
				p.Variants = map[string][]string{}
			}
			p.Variants[args[0]] = append(p.Variants[args[0]], args[1:]...)
		default:
			return unknownOption(d, "lb_policy feature", option, "on", "off", "variant")
		}
	}
	return nil
}

var (
	_ reverseproxy.Selector = (*Policy)(nil)
	_ caddy.Provisioner     = (*Policy)(nil)
	_ caddyfile.Unmarshaler = (*Policy)(nil)
)
