package caddymodule

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// Route sends a request one way while a flag is on for it and another way while
// it is off, and watches what it comes to. A flag that nobody defines, and one
// that cannot be evaluated, is off. Without a feature_flags handler before it,
// the context holds nothing but a sticky id.
//
// The response carries Vary with the request headers that the decision was read
// from, so that no shared cache serves the canary to everybody.
type Route struct {
	// Flag that decides.
	Flag string `json:"flag"`

	// On are the routes of those the flag is on for.
	On caddyhttp.RouteList `json:"on,omitempty"`

	// Off are the routes of everybody else.
	Off caddyhttp.RouteList `json:"off,omitempty"`

	// Variants are the routes of single variants; those without go the way of
	// On.
	Variants map[string]caddyhttp.RouteList `json:"variants,omitempty"`

	// Fallback has `off` answer where the canary fails. Default: the client sees the
	// canary's failure.
	Fallback *Fallback `json:"fallback,omitempty"`

	// Mirror sends copies of requests that go to `off` to `on`, too. Default: none.
	Mirror *Mirror `json:"mirror,omitempty"`

	// Pin keeps a browser that has loaded a page of the canary on the canary for so
	// long, at least 1s, at most 24h. Default: not at all.
	Pin caddy.Duration `json:"pin,omitempty"`

	// NoVary leaves Vary out.
	NoVary bool `json:"no_vary,omitempty"`

	app *App
}

// CaddyModule returns the module's information.
func (*Route) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.feature_route", New: func() caddy.Module { return new(Route) }}
}

// Provision sets the routes up.
func (rt *Route) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	rt.app = app
	if rt.Flag == "" {
		return fmt.Errorf("feature_route: want the name of a flag")
	}
	if rt.Fallback != nil {
		if err := rt.Fallback.provision(app, rt.Flag); err != nil {
			return fmt.Errorf("feature_route %s: fallback: %w", rt.Flag, err)
		}
	}
	if length := time.Duration(rt.Pin); length != 0 {
		if length < shortestPin || length > longestPin {
			return fmt.Errorf("feature_route %s: pin: want a duration from 1s to 24h, got %s", rt.Flag, length)
		}
		app.pins.add(ctx, rt.Flag, length)
	}
	if rt.Mirror != nil {
		if err := rt.Mirror.provision(ctx, app, rt.Flag); err != nil {
			return fmt.Errorf("feature_route %s: mirror: %w", rt.Flag, err)
		}
	}
	app.mention("feature_route", []string{rt.Flag})
	for name, routes := range map[string]caddyhttp.RouteList{evaluator.On: rt.On, evaluator.Off: rt.Off} {
		if err := routes.Provision(ctx); err != nil {
			return fmt.Errorf("feature_route %s: %s: %w", rt.Flag, name, err)
		}
	}
	for name, routes := range rt.Variants {
		if err := routes.Provision(ctx); err != nil {
			return fmt.Errorf("feature_route %s: variant %s: %w", rt.Flag, name, err)
		}
	}
	return nil
}

// ServeHTTP decides and goes that way.
func (rt *Route) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rq := requestOf(r)
	if rq == nil {
		rq = newRequest(rt.app, r)
	}
	alone := rq.watch.rq == nil && !rq.done // no feature_flags handler, no other route further out
	if alone {
		rq.header = w.Header()
		rq.readSticky(r, true)
		rq.takePins(r)
	}
	routes, i, canary := rt.choose(rq)
	rt.strip(rq, r)
	way := routes.Compile(next)
	pinned := rt.pinFor(rq, i, r)
	rescued := rt.Fallback != nil && canary && rq.eval.Decide(i).Detail != testerDetail
	switch {
	case rescued:
		way = rt.rescued(rq, i, way, next, pinned)
	case !canary && i >= 0 && rt.Mirror != nil:
		way = rt.mirrored(rq, i, way, next)
	}
	if !canary && rt.Fallback != nil && !rq.exempt {
		rt.Fallback.spent.control(rq.arrival)
	}
	if alone {
		rq.mark(rq.header)
		if pinned != nil && !rescued {
			plain := way
			way = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				return rq.routed(i, w, r, plain, pinned, nil)
			})
		}
		return rq.watched(w, r, way)
	}
	if i < 0 || rescued {
		return way.ServeHTTP(w, r)
	}
	return rq.routed(i, w, r, way, pinned, nil)
}

// strip removes what clients say in headers that are ours, but not what we have said
// in them ourselves.
func (rt *Route) strip(rq *request, r *http.Request) {
	if rt.Fallback != nil && rq.fallback == "" && !rq.tells(fallbackHeader) {
		stripOwned(r, rt.Fallback)
	}
	if rt.Mirror != nil && !rq.copied && !rq.tells(mirrorHeader) {
		stripOwned(r, rt.Mirror)
	}
}

// rescued has the canary's way answer, and off where that fails.
func (rt *Route) rescued(rq *request, i int, canary, next caddyhttp.Handler, pinned *pinning) caddyhttp.Handler {
	watched := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return rq.routed(i, w, r, canary, pinned, rt.Fallback.fails)
	})
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return rt.Fallback.serve(rq, i, w, r, watched, rt.Off.Compile(next))
	})
}

// mirrored has off answer, and the canary a copy of the request.
func (rt *Route) mirrored(rq *request, i int, off, next caddyhttp.Handler) caddyhttp.Handler {
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if !rt.Mirror.wants(rq, i, r) {
			return off.ServeHTTP(w, r)
		}
		on := rt.On
		if variant, ok := rt.Variants[rq.eval.WhenOn(i).Variant]; ok {
			on = variant
		}
		return rt.Mirror.serve(rq, i, w, r, off, on.Compile(next))
	})
}

// routed has a way answer that flag i has chosen, and counts for the flag what that
// comes to.
func (rq *request) routed(i int, w http.ResponseWriter, r *http.Request, way caddyhttp.Handler, pinned *pinning, fails func(status int) bool) error {
	if rq.done {
		return way.ServeHTTP(w, r)
	}
	x := rq.follow(i)
	if x == nil || x.routed || x.outcome != nil {
		return way.ServeHTTP(w, r) // the same flag further out tells the outcome
	}
	x.routed = true
	o := &observer{rq: rq, only: i, pinned: pinned, fails: fails}
	o.attempt, _ = w.(*attempt)
	o.ResponseWriter = w
	return o.serve(r, way)
}

// choose returns the way, the flag's number (-1 for a flag nobody defines or one that
// could not be decided), and whether the flag is on.
func (rt *Route) choose(rq *request) (routes caddyhttp.RouteList, i int, canary bool) {
	routes, i = rt.Off, -1
	defer rt.app.survive("choosing a route")
	n := rq.rules.Index(rt.Flag)
	if n < 0 {
		return routes, -1, false
	}
	d := rq.decide(n)
	if !rt.NoVary {
		rq.varyBy(n)
	}
	if d.Enabled {
		routes = rt.On
	}
	if variant, ok := rt.Variants[d.Variant]; ok {
		routes = variant
	}
	return routes, n, d.Enabled
}

var (
	_ caddy.Provisioner           = (*Route)(nil)
	_ caddyhttp.MiddlewareHandler = (*Route)(nil)
)
