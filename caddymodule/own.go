package caddymodule

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// claim says which requests a handler of ours answers itself: OFREP, feedback and
// the console. No flag is told to any application for them, and what becomes of
// them speaks for and against none.
type claim struct {
	within []caddy.Module // what the handler stands in, the outermost first
	takes  func(r *http.Request) bool
}

// claim notes what the handler that is being provisioned answers.
func (a *App) claim(ctx caddy.Context, takes func(r *http.Request) bool) {
	modules := ctx.Modules()
	a.claims = append(a.claims, claim{modules[:len(modules)-1], takes})
}

// ownBehind returns what tells requests that are answered by handlers of ours in
// the list of routes that the handler being provisioned stands in, or in lists
// within that one. It may be asked when the config is provisioned.
func (a *App) ownBehind(ctx caddy.Context) func(r *http.Request) bool {
	modules := ctx.Modules()
	var list caddy.Module
	if n := len(modules); n > 1 {
		list = modules[n-2]
	}
	claims := sync.OnceValue(func() (takes []func(*http.Request) bool) {
		for _, c := range a.claims {
			if list == nil || slices.Contains(c.within, list) {
				takes = append(takes, c.takes)
			}
		}
		return takes
	})
	return func(r *http.Request) bool {
		for _, takes := range claims() {
			if takes(r) {
				return true
			}
		}
		return false
	}
}

// onShutdown returns a context that is done when the servers of the config being
// provisioned shut down: what streams to clients must not hold that up.
func onShutdown(ctx caddy.Context) context.Context {
	ending, end := context.WithCancel(context.Background())
	for _, m := range ctx.Modules() {
		if app, ok := m.(*caddyhttp.App); ok {
			for _, s := range app.Servers {
				s.RegisterOnShutdown(end)
			}
		}
	}
	context.AfterFunc(ctx, end) // a config that does not come to run
	return ending
}

// ownRequest returns the record of a request that the plugin answers itself, with
// whatever the site's feature_flags block left to do. Where that has done all of it,
// because it stands where it could not know, the record is a copy: what is decided
// of it is no exposure of the request.
func ownRequest(app *App, r *http.Request) *request {
	rq := requestOf(r)
	switch {
	case rq == nil:
		rq = newRequest(app, r)
	case !rq.own:
		told := rq
		rq = &request{app: told.app, rules: told.rules, arrival: told.arrival, ctx: told.ctx.Clone(), site: told.site, repl: told.repl, tester: told.tester}
		rq.eval.Reset(rq.rules.Ruleset, &rq.ctx, rq.arrival)
		for _, o := range told.imposed {
			rq.overrule(o.flag, o.decision)
		}
	}
	rq.own = true
	return rq
}

// readOwn reads the context of a request that the plugin answers itself. tell is
// what the client says of itself, which counts where the site knows nothing
// better; nil: nothing. The error refuses the request (401).
func (rq *request) readOwn(w http.ResponseWriter, r *http.Request, tell func(*evaluator.Context)) (err error) {
	defer rq.app.survive("reading the context")
	h := rq.reader
	if h == nil && rq.site != nil { // it is read already
		if tell != nil {
			tell(&rq.ctx)
		}
		return nil
	}
	if h != nil {
		claims, err := h.authenticate(rq, w, r)
		if err != nil {
			return err
		}
		rq.site = h.siteRules(rq.rules, rq.arrival)
		h.read(rq, r, claims)
	} else {
		rq.readSticky(r, false)
	}
	if tell != nil {
		tell(&rq.ctx)
	}
	if h == nil {
		rq.takePins(r)
		return nil
	}
	if rq.ctx.TargetingKey() == "" && h.isSticky() {
		rq.readSticky(r, true)
	}
	h.takeImposed(rq, r, rq.signed)
	return nil
}
