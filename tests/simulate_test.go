package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// simulated runs `simulate` and returns its lines of JSON.
func simulated(t *testing.T, p *process, stdin string, args ...string) (lines []map[string]any, stderr string, status int) {
	t.Helper()
	out, stderr, status := p.command(stdin, append([]string{"simulate"}, args...)...)
	for line := range strings.Lines(out) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		lines = append(lines, l)
	}
	return lines, stderr, status
}

// trace is traffic of a hundred requests a second for a minute and a half, of
// whose canary everything fails from a minute on.
func trace(user bool) string {
	var b strings.Builder
	for i := range 9000 {
		canary := i%10 == 3
		outcome := `"ok", "status": 200`
		if canary && i >= 6000 {
			outcome = `"error", "status": 503`
		}
		who := ""
		if user {
			who = fmt.Sprintf(`"user": "u%d", `, i%1000)
		}
		fmt.Fprintf(&b, `{"t": %.2f, %s"canary": %t, "ttfb": 0.02, "duration": 0.03, "outcome": %s}`+"\n", 1000+float64(i)/100, who, canary, outcome)
	}
	return b.String()
}

func TestSimulate(t *testing.T) {
	p := newProcess(t, "", `{
		"new_ui": {"active": true, "percentage_rollout": 10},
		"patient": {"active": true, "percentage_rollout": 10, "guard": {"errors": {"tolerate": "40%", "tolerate_ratio": 100}}},
		"off": {"active": true, "percentage_rollout": 10, "guard": false}
	}`, nil)
	file := filepath.Join(p.dir, "features.json")
	threshold, everybody := filepath.Join(p.dir, "threshold.json"), filepath.Join(p.dir, "everybody.json")
	p.write("threshold.json", `{"new_ui": {"active": true, "percentage_rollout": 10, "error_threshold": 3}}`)
	p.write("everybody.json", `{"new_ui": {"active": true}}`)
	tests := []struct {
		name   string
		stdin  string
		args   []string
		want   string // verdict of the last line; "": it is refused
		stderr string // a part of it
		status int
	}{
		{name: "a trace", stdin: trace(true), args: []string{"--flags", file, "--flag", "new_ui", "--trace", "-"}, want: "trip"},
		{name: "without users", stdin: trace(false), args: []string{"--flags", file, "--flag", "new_ui", "--trace", "-"}, want: "trip"},
		{name: "by a guard that tolerates more", stdin: strings.ReplaceAll(trace(true), `"canary": true, "ttfb": 0.02, "duration": 0.03, "outcome": "error"`, `"canary": true, "ttfb": 0.02, "duration": 0.03, "outcome": "ok"`), args: []string{"--flags", file, "--flag", "patient", "--trace", "-"}, want: "keep"},
		{name: "the defaults", stdin: trace(true), args: []string{"--trace", "-"}, want: "trip"},
		{name: "a scenario", args: []string{"--scenario", "s22"}, want: "trip"},
		{name: "bad lines among good ones", stdin: "nonsense\n" + trace(true) + `{"t": 5000, "can`, args: []string{"--trace", "-"}, want: "trip", stderr: "-:1: "},
		{name: "out of order", stdin: `{"t": 10, "canary": true}` + "\n" + `{"t": 1, "canary": true}` + "\n", args: []string{"--trace", "-"}, want: "hold", stderr: "order of arrival"},
		{name: "one wrong time", stdin: strings.Replace(trace(true), "\n", "\n"+`{"t": 1767225600, "canary": true}`+"\n", 1), args: []string{"--trace", "-"}, want: "trip", stderr: "-:2: t: 1767225600 is long after the line above, and the next line is not"},
		{name: "a wrong time first", stdin: `{"t": 1767225600, "canary": true}` + "\n" + trace(true), args: []string{"--trace", "-"}, want: "trip", stderr: "-:1: t: 1767225600"},
		{name: "a night between", stdin: `{"t": -40000, "canary": true}` + "\n" + trace(true), args: []string{"--trace", "-"}, want: "trip"},
		{name: "a misspelt cohort", stdin: strings.ReplaceAll(trace(true), "canary", "cannary"), args: []string{"--trace", "-"}, want: "hold", stderr: "no request is of the canary"},
		{name: "a byte order mark", stdin: "\ufeff" + trace(true), args: []string{"--quiet", "--trace", "-"}, want: "trip"},
		{name: "no such status", stdin: `{"t": 0, "canary": true, "status": 1000}` + "\n" + trace(true), args: []string{"--trace", "-"}, want: "trip", stderr: "-:1: status: want a number from 100 to 999, got 1000"},
		{name: "neither status nor outcome", stdin: `{"t": 0, "canary": true}` + "\n" + trace(true), args: []string{"--trace", "-"}, want: "trip", stderr: "lines have neither status nor outcome"},
		{name: "mostly nonsense", stdin: `{"t": 0, "canary": true}` + "\n1\n2\n3\n", args: []string{"--trace", "-"}, stderr: "3 of 4 lines cannot be read", status: 1},
		{name: "thresholds", args: []string{"--flags", threshold, "--scenario", "S15"}, want: "keep", stderr: "its thresholds are not played"},
		{name: "on for everybody", args: []string{"--flags", everybody, "--scenario", "S01"}, want: "trip", stderr: "splits nobody"},
		{name: "nothing", args: []string{"--trace", "-"}, stderr: "no line is a request", status: 1},
		{name: "no such file", args: []string{"--trace", filepath.Join(p.dir, "none")}, stderr: "no such file", status: 1},
		{name: "neither trace nor scenario", stderr: "want --trace FILE or --scenario NAME", status: 1},
		{name: "an unknown scenario", args: []string{"--scenario", "S0l"}, stderr: `unknown scenario "S0l" (did you mean "S01"?)`, status: 1},
		{name: "an unknown flag", args: []string{"--flags", file, "--flag", "new_iu", "--scenario", "S01"}, stderr: `(did you mean "new_ui"?)`, status: 1},
		{name: "no flag of several", args: []string{"--flags", file, "--scenario", "S01"}, stderr: "want --flag NAME: it has 3 flags", status: 1},
		{name: "a guard that is off", args: []string{"--flags", file, "--flag", "off", "--scenario", "S01"}, stderr: "its guard is turned off", status: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lines, stderr, status := simulated(t, p, test.stdin, test.args...)
			if status != test.status || !strings.Contains(stderr, test.stderr) {
				t.Fatalf("status %d, %q; want %d, %q", status, stderr, test.status, test.stderr)
			}
			if test.want == "" {
				return
			}
			last := lines[len(lines)-1]
			if last["verdict"] != test.want {
				t.Fatalf("verdict %v, want %s: %v", last["verdict"], test.want, lines)
			}
			if test.want != "trip" {
				return
			}
			trip := lines[len(lines)-2]
			if trip["verdict"] != "trip" || trip["test"] != "errors" || trip["log_e"].(float64) < 9.2 || trip["canary"].(map[string]any)["bad"].(float64) < 3 {
				t.Errorf("the trip's line: %v", trip)
			}
			if last["t"] != trip["t"] || last["canary_bad"].(float64) < 3 {
				t.Errorf("the last line: %v", last)
			}
		})
	}
	if out, _, _ := p.command("", "simulate", "--scenario", "list"); !strings.Contains(out, "S19") || !strings.Contains(out, "a bot in the canary") {
		t.Errorf("the list of scenarios: %s", out)
	}
	out, _, _ := p.command("", "simulate", "--scenario", "S01", "--print")
	if lines, _, _ := simulated(t, p, out, "--trace", "-"); len(lines) == 0 || lines[len(lines)-1]["verdict"] != "trip" {
		t.Errorf("a printed scenario comes to %v", lines)
	}
}

// Caddy's own access log can be replayed: what the guard of a flag whose guard was
// off would have done.
func TestSimulateAccessLog(t *testing.T) {
	var broken atomic.Bool
	canary := upstream(t, "new", func(w http.ResponseWriter, _ *http.Request) bool {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
		return broken.Load()
	})
	p := newProcess(t, `{
	admin ADMIN
	auto_https off
	feature_flags {
		source file FEATURES
		state local STATE
	}
}
SITE {
	log {
		output file LOG
		format json
	}
`+twoWays+`}
`, `{"new_ui": {"active": true, "percentage_rollout": 20, "guard": false}}`,
		map[string]string{"NEW": host(canary), "OLD": host(upstream(t, "old", nil)), "LOG": filepath.Join(t.TempDir(), "access.log")})
	text, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "output file ")
	logFile, _, _ := strings.Cut(after, "\n")
	p.run()
	ask := func(n int) {
		for i := range n {
			time.Sleep(2 * time.Millisecond) // one block of a tenth of a second alone cannot trip
			if _, err := try(p.site+"/", "X-User-ID", fmt.Sprintf("u%d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(500)
	broken.Store(true)
	ask(500)
	failed := 0
	for i := range 500 {
		if evaluator.Bucket(fmt.Sprintf("u%d", i), "new_ui") < 20 {
			failed++
		}
	}
	p.write("guarded.json", `{"new_ui": {"active": true, "percentage_rollout": 20}}`)
	simulate := func() []map[string]any {
		lines, _, _ := simulated(t, p, "", "--flags", filepath.Join(p.dir, "guarded.json"), "--flag", "new_ui", "--trace", logFile)
		return lines
	}
	eventually(t, 5*time.Second, "the replayed log does not trip", func() bool {
		lines := simulate()
		return len(lines) > 0 && lines[len(lines)-1]["verdict"] == "trip"
	})
	last := simulate()
	if bad := last[len(last)-1]["canary_bad"].(float64); bad < 3 || bad > 80 {
		t.Errorf("tripped after %v of %d failures: %v", bad, failed, last)
	}
	if _, stderr, status := p.command("", "simulate", "--flag", "another", "--trace", logFile); status != 1 || !strings.Contains(stderr, "no line is a request") {
		t.Errorf("of another flag: status %d, %q", status, stderr)
	}
}
