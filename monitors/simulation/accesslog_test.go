package simulation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

// Every form of time and duration that Caddy's JSON encoder writes means the same.
func TestAccessLogTimes(t *testing.T) {
	for _, ts := range []string{`1795262400.5`, `1795262400500`, `1795262400500000000`, `"2026-11-21T12:00:00.500Z"`, `"2026-11-21T14:00:00.500+0200"`, `"2026/11/21 12:00:00.500"`} {
		for _, lasted := range []string{`0.25`, `"250ms"`, `"0.25"`} {
			line := fmt.Sprintf(`{"ts": %s, "duration": %s, "status": 502, "user_id": "ana", "request": {"client_ip": "192.0.2.7"}, "feature_flags": {"f": {"variant": "on", "reason": "SPLIT", "outcome": "error", "ttfb": 0.1}}}`, ts, lasted)
			if !simulation.IsAccessLog([]byte(line)) {
				t.Fatalf("not taken for an access log: %s", line)
			}
			q, err := simulation.AccessLog{Flag: "f"}.Parse([]byte(line))
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if q.T != 1795262400.25 || *q.Duration != 0.25 || *q.FirstByte != 0.1 || q.Status != 502 || !q.Canary || q.User != "ana" || q.Outcome != "error" {
				t.Errorf("%s: %+v", line, q)
			}
			if q, _ = (simulation.AccessLog{Flag: "f", User: "request.client_ip"}).Parse([]byte(line)); q.User != "192.0.2.7" {
				t.Errorf("the user is %q", q.User)
			}
		}
	}
}

// Lines of others are of no use, and lines that make no sense are told.
func TestAccessLogLines(t *testing.T) {
	const head = `{"ts": 1, "duration": 0.1, "status": 200, "request": {}, "feature_flags": `
	for line, want := range map[string]string{
		head + `{"g": {"variant": "on", "reason": "SPLIT"}}}`:                     "not of this flag's split",
		head + `{"f": {"variant": "on", "reason": "TARGETING_MATCH"}}}`:           "not of this flag's split",
		head + `{"f": {"variant": "off", "reason": "SPLIT", "compared": false}}}`: "not of this flag's split",
		head + `{"f": {"variant": "off", "reason": "SPLIT", "compared": true}}}`:  "",
		head + `{"f": {"variant": "off", "reason": "SPLIT"}}}`:                    "",
		head + `{"f": 7}}`: "want a JSON object",
		`{"ts": "noon", "duration": 0.1, "feature_flags": {"f": {"reason": "SPLIT"}}}`: "ts: want a time",
		`{"ts": 1, "duration": -4, "feature_flags": {"f": {"reason": "SPLIT"}}}`:       "duration: want seconds",
	} {
		_, err := simulation.AccessLog{Flag: "f"}.Parse([]byte(line))
		switch {
		case want == "" && err != nil, want != "" && err == nil, err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %q", line, err, want)
		case strings.HasPrefix(want, "not of") && !errors.Is(err, simulation.ErrOther):
			t.Errorf("%s: %v is a mistake", line, err)
		}
	}
}
