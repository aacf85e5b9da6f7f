package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
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
	"flags/{name}/rollout": {http.MethodPost: (*App).serveRollout},
	"override_link":        {http.MethodPost: (*App).serveOverrideLink},
	"evaluate":             {http.MethodPost: (*App).serveEvaluate},
	"audit":                {http.MethodGet: (*App).serveAudit},
	"feedback/{name}":      {http.MethodGet: (*App).serveFeedback},
	"history/{name}":       {http.MethodGet: (*App).serveHistory},
	"events":               {http.MethodGet: (*App).serveEvents},
	"lint":                 {http.MethodGet: (*App).serveLint},
}

// serve finds the running app and the call.
func (ad *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	v, err := caddy.ActiveContext().AppIfConfigured("feature_flags")
	if err != nil { // also before the first config is in force
		return problem(http.StatusServiceUnavailable, "feature_flags is not configured, or Caddy is still starting: name a features file in the global option feature_flags")
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
		failed = problem(http.StatusNotFound, "no such call: %s; there are /feature_flags/flags, /override_link, /evaluate, /audit, /feedback, /history, /events and /lint", r.URL.Path)
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
	err := readObject(http.MaxBytesReader(w, r.Body, maxBody), v)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, "body: more than %d bytes", maxBody)
	}
	return problem(http.StatusBadRequest, "body: %v", err)
}

// errCutOff is a JSON object whose end is missing.
var errCutOff = errors.New("want a JSON object: it ends in the middle")

// readObject decodes one JSON object and nothing after it into a struct or a map;
// numbers in fields of any type keep every digit. The error is io.EOF where
// there is nothing at all, and says else what is wrong in words.
func readObject(from io.Reader, v any) error {
	dec := json.NewDecoder(from)
	dec.DisallowUnknownFields()
	dec.UseNumber()
	err := dec.Decode(v)
	var tooLarge *http.MaxBytesError
	if err == nil {
		_, err = dec.Token()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case !errors.As(err, &tooLarge):
			return errors.New("text after the JSON object")
		}
	}
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &tooLarge):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errCutOff
	case errors.As(err, &kind) && kind.Field == "":
		return fmt.Errorf("want a JSON object, got %s", kind.Value)
	case errors.As(err, &kind):
		return fmt.Errorf("%s: want %s, got %s", kind.Field, kindWord(kind.Type.Kind()), kind.Value)
	case errors.As(err, &syntax):
		return fmt.Errorf("want a JSON object: %w", err)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("unknown field %s; there are %s", field, strings.Join(fieldsOf(v), ", "))
	}
	return err
}

func kindWord(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Float64:
		return "a number"
	}
	return "an object"
}

// fieldsOf names the JSON fields of the struct that v points to.
func fieldsOf(v any) (names []string) {
	for field := range reflect.TypeOf(v).Elem().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
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
	for _, s := range a.sources {
		if err := s.unsaved.Load(); err != nil {
			out = append(out, (*err).Error())
		}
	}
	if h := a.engine.store.Health(); h.Degraded {
		out = append(out, fmt.Sprintf("state: %v", h.Err))
	}
	if s := a.engine.messenger.current(); s != nil {
		if err := s.Health(); err != nil {
			out = append(out, err.Error())
		}
	}
	if kept := a.engine.recorder.history(); kept != nil {
		if err := kept.Health(); err != nil {
			out = append(out, err.Error())
		}
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

func (o order) check() error {
	if len(o.By) > 256 || len(o.Reason) > 4096 {
		return problem(http.StatusBadRequest, "by: at most 256 bytes, reason: at most 4096")
	}
	return nil
}

// change does what an operator orders, and answers with the flag as it is then.
func (a *App) change(w http.ResponseWriter, r *http.Request, do func(flag string, o order) error) error {
	var o order
	return a.changeWith(w, r, &o, func() *order { return &o }, do)
}

// changeWith is change for bodies that hold more than the order.
func (a *App) changeWith(w http.ResponseWriter, r *http.Request, body any, said func() *order, do func(flag string, o order) error) error {
	_, _, err := a.named(r)
	if err != nil {
		return err
	}
	if err := readBody(w, r, body); err != nil {
		return err
	}
	o := *said()
	if err := o.check(); err != nil {
		return err
	}
	o.By = cmp.Or(o.By, "api")
	unsaved := do(r.PathValue("name"), o)
	var refused caddy.APIError
	if errors.As(unsaved, &refused) {
		return refused
	}
	rs, i, err := a.named(r)
	if err != nil {
		return err
	}
	v := a.view(rs, i, time.Now())
	if unsaved != nil {
		v.Warning = fmt.Sprintf("in force, but not on disk: %v", unsaved)
	}
	return reply(w, v)
}

func (a *App) serveEnable(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(flag string, o order) error {
		return a.engine.override(flag, state.Enabled, o.By, o.Reason)
	})
}

func (a *App) serveDisable(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(flag string, o order) error {
		return a.engine.override(flag, state.Disabled, o.By, o.Reason)
	})
}

func (a *App) serveReset(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(flag string, o order) error {
		return a.engine.reset(flag, o.By, o.Reason)
	})
}

// question is what POST /evaluate asks; its fields are optional.
type question struct {
	Context     map[string]any `json:"context,omitempty"`
	Environment *string        `json:"environment,omitempty"`
	At          *moment        `json:"at,omitempty"`
	Flags       []string       `json:"flags,omitempty"`
}

// moment is a time that people write: RFC 3339, UTC where it has no offset, as
// in definitions.
type moment time.Time

func parseMoment(text string) (moment, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return moment(t), nil
		}
	}
	return moment{}, fmt.Errorf("at: want a time as 2026-01-31T12:00:00Z, got %q", text)
}

// UnmarshalJSON is part of json.Unmarshaler.
func (m *moment) UnmarshalJSON(text []byte) (err error) {
	var s string
	if json.Unmarshal(text, &s) != nil {
		s = string(text)
	}
	*m, err = parseMoment(s)
	return err
}

// MarshalJSON is part of json.Marshaler.
func (m moment) MarshalJSON() ([]byte, error) { return time.Time(m).MarshalJSON() }

// explained is a decision with the path that led to it.
type explained struct {
	*evaluator.Decision
	Detail string           `json:"detail"` // the decision's; told also where it is empty
	Path   []evaluator.Step `json:"path,omitempty"`
}

// answer decides what q asks. environment is the default.
func answer(r *evaluator.Ruleset, q question, environment string, path bool) map[string]explained {
	if q.Environment != nil {
		environment = *q.Environment
	}
	at := time.Now()
	if q.At != nil {
		at = time.Time(*q.At)
	}
	known := make([]string, r.Len())
	for i := range known {
		known[i] = r.Definition(i).Name
	}
	names := q.Flags
	if len(names) == 0 {
		names = known
	}
	var e evaluator.Evaluation
	e.Reset(r, evaluator.NewContext(environment, q.Context), at)
	out := make(map[string]explained, len(names))
	for _, name := range names {
		var d *evaluator.Decision
		var steps []evaluator.Step
		switch i := r.Index(name); {
		case i < 0:
			d = evaluator.Unknown(name)
			d.Message += didYouMean(name, known)
		case path:
			d, steps = e.Explain(i)
		default:
			d = e.Decide(i)
		}
		out[name] = explained{d, d.Detail, steps}
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
	limit, err := readLimit(r)
	if err != nil {
		return err
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
		last := a.engine.monitor(flag).LastAsked()
		return last, !last.IsZero() || now.Sub(processStart) >= lintPatience
	})
}

// lintPatience is how long nobody must have asked for a flag since the process
// began before lint says so.
const lintPatience = time.Hour

var processStart = time.Now()

// serveEvents streams news until the client leaves or the config ends. A client
// that was away for a moment says by Last-Event-ID what it has seen.
func (a *App) serveEvents(w http.ResponseWriter, r *http.Request) error {
	newest, missed, ch, leave := a.engine.stream.watch(r.Header.Get("Last-Event-ID"))
	defer leave()
	out := newEventWriter(w)
	tell := func(n numbered) bool {
		text, err := json.Marshal(n.news)
		return err != nil || out.send("id: %s\nevent: %s\ndata: %s\n\n", n.id, n.Event, text)
	}
	if len(missed) > 0 {
		newest = r.Header.Get("Last-Event-ID")
	}
	if !out.send("retry: 1000\nid: %s\n: watching\n\n", newest) {
		return nil
	}
	for _, n := range missed {
		if !tell(n) {
			return nil
		}
	}
	ctx, done := whileAll(r.Context(), a.running)
	defer done()
	out.follow(ctx, ch, tell, heartbeat, out.stillHere)
	return nil
}

var _ caddy.AdminRouter = (*Admin)(nil)
