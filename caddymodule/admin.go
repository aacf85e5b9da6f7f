package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// Admin serves the operators' API on Caddy's admin endpoint, under
// /feature_flags/. Whoever reaches that endpoint is an operator.
type Admin struct{}

// CaddyModule returns the module's information.
func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.feature_flags", New: func() caddy.Module { return new(Admin) }}
}

// maxBody bounds what an operator can post.
const maxBody = 1 << 20

// Routes is part of caddy.AdminRouter.
func (ad *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/feature_flags/", Handler: caddy.AdminHandlerFunc(ad.serve)}}
}

type adminCall func(a *App, w http.ResponseWriter, r *http.Request) error

// adminCalls are the calls by path and method; {name} is a flag's.
var adminCalls = map[string]map[string]adminCall{
	"flags":                {http.MethodGet: (*App).serveFlags},
	"flags/{name}":         {http.MethodGet: (*App).serveFlag},
	"flags/{name}/enable":  {http.MethodPost: (*App).serveEnable},
	"flags/{name}/disable": {http.MethodPost: (*App).serveDisable},
	"flags/{name}/reset":   {http.MethodPost: (*App).serveReset},
	"evaluate":             {http.MethodPost: (*App).serveEvaluate},
	"audit":                {http.MethodGet: (*App).serveAudit},
	"events":               {http.MethodGet: (*App).serveEvents},
	"lint":                 {http.MethodGet: (*App).serveLint},
}

// serve finds the running app and the call.
func (ad *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	v, err := caddy.ActiveContext().AppIfConfigured("feature_flags")
	if err != nil {
		return problem(http.StatusServiceUnavailable, "feature_flags is not configured: name a features file in the global option feature_flags")
	}
	var failed error
	mux := http.NewServeMux()
	for path, methods := range adminCalls {
		mux.HandleFunc("/feature_flags/"+path, func(w http.ResponseWriter, r *http.Request) {
			call, ok := methods[r.Method]
			if !ok {
				for m := range methods {
					w.Header().Set("Allow", m)
				}
				failed = problem(http.StatusMethodNotAllowed, "%s is not allowed here; use %s", r.Method, w.Header().Get("Allow"))
				return
			}
			failed = call(v.(*App), w, r)
		})
	}
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {
		failed = problem(http.StatusNotFound, "no such call: %s; there are /feature_flags/flags, /evaluate, /audit, /events and /lint", r.URL.Path)
	})
	mux.ServeHTTP(w, r)
	return failed
}

func problem(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// readBody decodes an optional JSON object; an empty body leaves v as it is.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	err := dec.Decode(v)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, "body: more than %d bytes", maxBody)
	case err != nil:
		return problem(http.StatusBadRequest, "body: want a JSON object: %v", err)
	case dec.More():
		return problem(http.StatusBadRequest, "body: text after the JSON object")
	}
	return nil
}

func (a *App) serveFlags(w http.ResponseWriter, _ *http.Request) error {
	r := a.rules.Load()
	out := struct {
		Environment string     `json:"environment"`
		Degraded    []string   `json:"degraded"` // what is wrong; empty when nothing is
		State       healthView `json:"state"`
		Flags       []flagView `json:"flags"`
	}{Environment: a.environment, Degraded: a.degraded(), State: viewHealth(a.engine.store.Health()), Flags: make([]flagView, r.Len())}
	now := time.Now()
	for i := range out.Flags {
		out.Flags[i] = a.view(r, i, now)
	}
	return reply(w, out)
}

// degraded says in words what does not work as it should.
func (a *App) degraded() []string {
	out := []string{}
	if f := a.failing.Load(); f != nil {
		out = append(out, fmt.Sprintf("definitions: the last good ones are in force since %s: %v", f.since.UTC().Format(time.RFC3339), f.err))
	}
	if h := a.engine.store.Health(); h.Degraded {
		out = append(out, fmt.Sprintf("state: %v", h.Err))
	}
	return out
}

// named returns the rules and the number of the flag in the path.
func (a *App) named(r *http.Request) (*rules, int, error) {
	rs := a.rules.Load()
	name := r.PathValue("name")
	if i := rs.Index(name); i >= 0 {
		return rs, i, nil
	}
	return rs, -1, problem(http.StatusNotFound, "flag %q is not defined%s", name, didYouMean(name, rs.names))
}

func (a *App) serveFlag(w http.ResponseWriter, r *http.Request) error {
	rs, i, err := a.named(r)
	if err != nil {
		return err
	}
	return reply(w, a.view(rs, i, time.Now()))
}

// order is what an operator may say about a change.
type order struct {
	Reason string `json:"reason"`
	By     string `json:"by"`
}

func (a *App) change(w http.ResponseWriter, r *http.Request, do func(flag string, o order)) error {
	_, _, err := a.named(r)
	if err != nil {
		return err
	}
	o := order{By: "api"}
	if err := readBody(w, r, &o); err != nil {
		return err
	}
	if len(o.By) > 256 || len(o.Reason) > 4096 {
		return problem(http.StatusBadRequest, "by: at most 256 bytes, reason: at most 4096")
	}
	do(r.PathValue("name"), o)
	return a.serveFlag(w, r)
}

func (a *App) serveEnable(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(flag string, o order) { a.engine.override(flag, state.Enabled, o.By, o.Reason) })
}

func (a *App) serveDisable(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(flag string, o order) { a.engine.override(flag, state.Disabled, o.By, o.Reason) })
}

func (a *App) serveReset(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(flag string, o order) { a.engine.reset(flag, o.By, o.Reason) })
}

// question is what POST /evaluate asks; its fields are optional.
type question struct {
	Context     map[string]any `json:"context"`
	Environment *string        `json:"environment"`
	At          *time.Time     `json:"at"`
	Flags       []string       `json:"flags"`
}

// explained is a decision with the path that led to it.
type explained struct {
	*evaluator.Decision
	Path []evaluator.Step `json:"path,omitempty"`
}

// answer decides what q asks. environment is the default.
func answer(r *evaluator.Ruleset, q question, environment string, path bool) map[string]explained {
	if q.Environment != nil {
		environment = *q.Environment
	}
	at := time.Now()
	if q.At != nil {
		at = *q.At
	}
	names := q.Flags
	if len(names) == 0 {
		for i := range r.Len() {
			names = append(names, r.Definition(i).Name)
		}
	}
	var e evaluator.Evaluation
	e.Reset(r, evaluator.NewContext(environment, q.Context), at)
	out := make(map[string]explained, len(names))
	for _, name := range names {
		i := r.Index(name)
		switch {
		case i < 0:
			out[name] = explained{Decision: evaluator.Unknown(name)}
		case path:
			d, steps := e.Explain(i)
			out[name] = explained{d, steps}
		default:
			out[name] = explained{Decision: e.Decide(i)}
		}
	}
	return out
}

func (a *App) serveEvaluate(w http.ResponseWriter, r *http.Request) error {
	var q question
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	return reply(w, map[string]any{"decisions": answer(a.rules.Load().Ruleset, q, a.environment, true)})
}

func (a *App) serveAudit(w http.ResponseWriter, r *http.Request) error {
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 10_000 {
			return problem(http.StatusBadRequest, "limit: want a number from 1 to 10000, got %q", text)
		}
		limit = n
	}
	entries := a.engine.store.Audit(state.AuditFilter{Flag: r.URL.Query().Get("flag"), Limit: limit})
	if entries == nil {
		entries = []state.AuditEntry{}
	}
	return reply(w, map[string]any{"entries": entries})
}

func (a *App) serveLint(w http.ResponseWriter, _ *http.Request) error {
	findings := a.lint(time.Now())
	if findings == nil {
		findings = []evaluator.Finding{}
	}
	return reply(w, map[string]any{"findings": findings})
}

// lint looks at the definitions in force, with what was asked for lately.
func (a *App) lint(now time.Time) []evaluator.Finding {
	return evaluator.Lint(a.rules.Load().Ruleset, now, func(flag string) (time.Time, bool) {
		return a.engine.monitor(flag).LastAsked(), now.Sub(a.started) > 0
	})
}

// heartbeat keeps proxies and clients from taking a quiet stream for a dead one.
const heartbeat = 15 * time.Second

// serveEvents streams news until the client leaves or the config ends.
func (a *App) serveEvents(w http.ResponseWriter, r *http.Request) error {
	ch, leave := a.stream.watch()
	defer leave()
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := fmt.Fprint(w, "retry: 1000\n\n: watching\n\n"); err != nil {
		return nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		if err := control.Flush(); err != nil {
			return nil // the client has gone
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-beat.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return nil
			}
		case n, ok := <-ch:
			if !ok {
				return nil
			}
			text, err := json.Marshal(n)
			if err != nil {
				continue
			}
			if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", n.Event, text); err != nil {
				return nil
			}
		}
	}
}

var _ caddy.AdminRouter = (*Admin)(nil)
