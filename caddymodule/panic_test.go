package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	logs "go.uber.org/zap/zaptest/observer"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// brokenApp is an app whose rules make deciding, or recording, panic.
func brokenApp(t *testing.T, spoil func(*rules)) (*App, *logs.ObservedLogs) {
	t.Helper()
	doc, err := evaluator.Decode("f", []byte(`{"x": {"active": true, "error_threshold": 1}}`))
	if err != nil {
		t.Fatal(err)
	}
	program, err := evaluator.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	core, seen := logs.New(zap.WarnLevel)
	store := state.Open("", state.Options{})
	t.Cleanup(func() { _ = store.Close() })
	a := &App{log: zap.New(core), engine: &engine{store: store, monitors: map[string]*monitors.Flag{}, resumed: map[string]bool{}}}
	a.quiet = newQuietLog(a.log)
	r := bind(program, a.engine)
	spoil(r)
	a.rules.Store(r)
	return a, seen
}

// Whatever panics in the plugin, the request goes on; it is counted and logged.
func TestPanicsNeverFailARequest(t *testing.T) {
	spoils := map[string]func(*rules){
		"while deciding":  func(r *rules) { r.monitors = nil },
		"while recording": func(r *rules) { r.cells = nil },
		"no monitor":      func(r *rules) { r.monitors[0].flag = nil },
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			a, seen := brokenApp(t, spoil)
			h := &Handler{app: a, log: a.log, Headers: &Headers{Mode: "each", Name: "X-Feature-"}}
			route := &Route{app: a, Flag: "x"}
			match := &Match{app: a, Flag: "x"}
			before := panicsCounted(t)

			answer := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				if r.Header.Get("X-Feature-X") == "forged" {
					t.Error("a forged header passed")
				}
				_, err := w.Write([]byte("served"))
				return err
			})
			serve := func(what string, f func(w http.ResponseWriter, r *http.Request) error) {
				t.Helper()
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("X-Feature-X", "forged")
				r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
				w := httptest.NewRecorder()
				if err := f(w, r); err != nil || w.Code != http.StatusOK || w.Body.String() != "served" {
					t.Errorf("%s: %v, status %d, %q", what, err, w.Code, w.Body.String())
				}
			}
			serve("feature_flags", func(w http.ResponseWriter, r *http.Request) error { return h.ServeHTTP(w, r, answer) })
			serve("feature_route", func(w http.ResponseWriter, r *http.Request) error {
				r.Header.Del("X-Feature-X")
				return route.ServeHTTP(w, r, answer)
			})
			serve("matcher", func(w http.ResponseWriter, r *http.Request) error {
				r.Header.Del("X-Feature-X")
				if _, err := match.MatchWithError(r); err != nil {
					return err
				}
				return answer(w, r)
			})
			if got := panicsCounted(t); got <= before {
				t.Errorf("panics counted: %v, want more than %v", got, before)
			}
			if seen.Len() == 0 {
				t.Error("nothing was logged")
			}
		})
	}
}

// A verifier that panics lets nobody in.
func TestPanicInVerifierIsABadToken(t *testing.T) {
	a, _ := brokenApp(t, func(*rules) {})
	j := &JWT{From: []TokenPlace{{In: "header", Name: "Authorization"}}, OnInvalid: "reject", quiet: a.quiet, verifier: nil}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer a.b.c")
	if values, err := j.claims(r, time.Now()); err == nil || values != nil {
		t.Errorf("claims %v, error %v; want none and a refusal", values, err)
	}
}

func panicsCounted(t *testing.T) float64 {
	t.Helper()
	var m dto.Metric
	if err := panics.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
