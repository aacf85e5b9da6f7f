package caddymodule

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// Requests that the plugin answers itself, for OFREP, feedback and the console, are no
// exposures: no application is asked, so what becomes of them speaks for and against
// no flag.

// takeOver takes back that a request is an exposure of anything, and the sticky id
// that it was given: ownRequest hands that out where it is used.
func takeOver(w http.ResponseWriter, r *http.Request) {
	rq := requestOf(r)
	if rq == nil {
		return
	}
	rq.withdraw()
	if rq.cookie != "" {
		h := w.Header()
		h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(line string) bool { return line == rq.cookie })
		rq.fresh, rq.cookie = rq.cookie, ""
	}
}

func (rq *request) withdraw() {
	defer rq.app.survive("withdrawing a request")
	for k := range rq.exposures {
		if rq.exposures[k].outcome == nil {
			rq.exposures[k].Withdraw()
		}
	}
	rq.ticket.Withdraw()
	rq.exposures, rq.bulk, rq.done, rq.watch.counted = nil, nil, true, true
}

// ownRequests are records of requests that were answered, with their evaluations' memory.
var ownRequests = sync.Pool{New: func() any { return new(request) }}

// release gives back what ownRequest gave.
func (rq *request) release() {
	*rq = request{eval: rq.eval}
	ownRequests.Put(rq)
}

// ownRequest returns a record of a request that the plugin answers itself, with the
// context that the site's feature_flags block has read. tell is what the client says
// of itself, which counts where the site knows nothing better; nil: nothing. known is
// the targeting key that the site knows by itself.
func ownRequest(app *App, w http.ResponseWriter, r *http.Request, tell func(*evaluator.Context)) (rq *request, known string) {
	told := requestOf(r)
	if told != nil && told.site == nil {
		told = nil // nobody has read anything
	}
	// Now, and by what is in force now: the client may have taken its time to say what it wants.
	rq = ownRequests.Get().(*request)
	rq.app, rq.rules, rq.arrival = app, app.rules.Load(), time.Now()
	rq.ctx.Environment = app.environment
	fresh := "" // the cookie of an id that nobody has had yet: who says who it is keeps that
	if told == nil {
		if app.hasHandler {
			app.bare.Do(func() {
				app.log.Warn("what clients say of themselves is believed where no feature_flags has read the request before feature_flags_ofrep or feature_flags_feedback: put them at one level, without a matcher that feature_flags alone has", zap.String("first", r.URL.Path))
			})
		}
		rq.readSticky(r, false)
	} else {
		if len(told.imposed) > 0 {
			rq.rules = told.rules // what others have decided is by these
		}
		rq.ctx, rq.tester, rq.trustedUser, rq.sticky, fresh = told.ctx.Clone(), told.tester, told.trustedUser, told.sticky, told.fresh
	}
	if fresh != "" {
		rq.ctx.Set(evaluator.UserID, evaluator.Value{})
	}
	known = rq.ctx.TargetingKey()
	if tell != nil {
		tell(&rq.ctx)
	}
	// A page of another origin brings no cookie back: it would be somebody else each time.
	if fresh != "" && rq.ctx.TargetingKey() == "" && !origins(nil).isForeign(r) {
		rq.ctx.Set(evaluator.UserID, told.ctx.Get(evaluator.UserID))
		told.cookie, told.fresh = fresh, ""
		told.mark(w.Header())
	}
	rq.eval.Reset(rq.rules.Ruleset, &rq.ctx, rq.arrival)
	if told != nil {
		for _, o := range told.imposed {
			rq.overrule(o.flag, o.decision)
		}
	} else {
		rq.takePins(r)
	}
	return rq, known
}

// originalURL is a request's address as it came, whatever has rewritten it since. It
// must not be changed.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		return original.URL
	}
	return r.URL
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
