package tests

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// said fails the test unless a command ended with the status and its output
// holds all of the texts.
func (p *process) said(want int, args []string, texts ...string) string {
	p.t.Helper()
	out, errs, status := p.command("", args...)
	if status != want {
		p.t.Errorf("%v: status %d, want %d\n%s%s", args, status, want, out, errs)
	}
	for _, text := range texts {
		if !strings.Contains(out+errs, text) {
			p.t.Errorf("%v does not say %q:\n%s%s", args, text, out, errs)
		}
	}
	if strings.ContainsRune(out+errs, '\x1b') {
		p.t.Errorf("%v steers the terminal: %q", args, out+errs)
	}
	if strings.Contains(errs, "panic") || strings.Contains(errs, "goroutine ") {
		p.t.Errorf("%v: %s", args, errs)
	}
	return out
}

// at gives the arguments for the process' admin API.
func (p *process) at(args ...string) []string { return append(args, "--address", p.admin) }

const threeFlags = `{
  "new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 50, "error_threshold": 2},
  "dormant.flag": {"active": false, "metadata": {"description": "sleeps"}},
  "big": {"active": true, "users": [9007199254740993]}
}`

func TestCommandsAgainstAProcess(t *testing.T) {
	p := canaryProcess(t, threeFlags)
	p.run()
	p.said(0, p.at("list"), "FLAG", "new_ui", "split", "50", "dormant.flag", "inactive", "big")
	p.said(0, p.at("show", "new_ui"), "new_ui: split, 50 %", "features.json:2", `"error_threshold"`, "COHORT", "since it was armed")
	p.said(1, p.at("show", "new-uii"), `flag "new-uii" is not defined`, `did you mean "new_ui"?`)

	// By hand. What others write as a reason does not steer the terminal.
	escape := "\x1b[2J\x1b]0;owned\x07 line\nbreak \u202egnorw\u009b31m"
	p.said(0, p.at("enable", "dormant.flag", "--reason", escape, "--by", "mal\x1b[31mlory"), "dormant.flag: on")
	p.said(0, p.at("show", "dormant.flag"), "enabled by mal", "owned")
	p.said(0, p.at("audit"), "enabled", "owned")
	p.said(0, p.at("disable", "dormant.flag", "--reason", "complaints"), "dormant.flag: disabled")
	p.said(0, p.at("show", "dormant.flag"), "disabled by", "complaints")
	p.said(0, p.at("evaluate", "dormant.flag"), "dormant.flag: off (DISABLED override)")
	p.said(0, p.at("reset", "dormant.flag"), "dormant.flag: inactive")

	// The trip, in words.
	p.trip()
	show := p.said(0, p.at("show", "new_ui"), "new_ui: tripped, 0 %", "by errors: 3 canary requests failed", "error_threshold 2", "failing request ", "status 500", "to undo: caddy feature-flags reset new_ui")
	if n := strings.Count(show, "failing request "); n != 3 {
		t.Errorf("%d failing requests are shown, want 3:\n%s", n, show)
	}
	for line := range strings.Lines(show) {
		if id, ok := strings.CutPrefix(line, "  failing request "); ok && len(strings.Fields(id)[0]) < 26 {
			t.Errorf("a failing request without an id: %s", line)
		}
	}
	p.said(0, p.at("list"), "tripped")
	p.said(0, p.at("enable", "new_ui"), "new_ui: tripped") // enabling undoes no trip
	p.said(0, p.at("evaluate", "new_ui", "--context", `{"user_id": "alice"}`), "new_ui: off (DISABLED tripped:errors)")
	p.said(0, p.at("reset", "new_ui", "--reason", "fixed", "--by", "ops"), "new_ui: split")
	if got := p.way("alice"); got != "new" {
		t.Errorf("after the reset alice gets %q", got)
	}

	// The audit: newest first, filtered, limited.
	audit := p.said(0, p.at("audit", "--flag", "new_ui"), "tripped", "guard", "fixed", "ops")
	rows := slices.Collect(strings.Lines(audit))
	if len(rows) != 5 || !strings.HasPrefix(rows[0], "TIME") || !strings.Contains(rows[4], "tripped") || strings.Contains(audit, "dormant") {
		t.Errorf("audit of new_ui, want cleared, reset, enabled and tripped:\n%s", audit)
	}
	if rows := slices.Collect(strings.Lines(p.said(0, p.at("audit", "--limit", "1")))); len(rows) != 2 {
		t.Errorf("audit --limit 1 prints %q", rows)
	}
	p.said(1, p.at("audit", "--limit", "0"), "limit: want a number from 1 to 10000")

	// Deciding online.
	p.said(0, p.at("evaluate", "new_ui", "--context", `{"user_id": "alice"}`), "new_ui: on (TARGETING_MATCH user)", "✓")
	p.said(0, p.at("evaluate", "big", "--context", `{"user_id": 9007199254740993}`), "big: on (TARGETING_MATCH user)")
	p.said(0, p.at("evaluate", "big", "--context", `{"user_id": 9007199254740992}`), "big: off (DEFAULT user)")
	p.said(1, p.at("evaluate", "new_u"), "FLAG_NOT_FOUND", `did you mean "new_ui"?`)
	out, _, status := p.command(`{"context": {"user_id": "alice"}}`+"\n\n"+`{"context": {"user_id": 9007199254740993}, "flags": ["big"]}`, p.at("evaluate", "new_ui", "--contexts", "-")...)
	want := `{"decisions":{"new_ui":{"enabled":true,"variant":"on","reason":"TARGETING_MATCH","detail":"user"}}}
{"decisions":{"big":{"enabled":true,"variant":"on","reason":"TARGETING_MATCH","detail":"user"}}}
`
	if status != 0 || out != want {
		t.Errorf("evaluate --contexts - online: status %d\n%s\nwant\n%s", status, out, want)
	}

	// JSON everywhere.
	for _, args := range [][]string{{"list"}, {"show", "new_ui"}, {"enable", "big"}, {"disable", "big"}, {"reset", "big"}, {"audit"}, {"lint"}, {"evaluate"}} {
		out, errs, _ := p.command("", p.at(append(args, "--json")...)...)
		if !json.Valid([]byte(out)) || strings.Count(out, "\n") != 1 {
			t.Errorf("%v --json prints %q %q", args, out, errs)
		}
	}

	// Another way to say where the API is, and wrong ones.
	p.said(0, []string{"list", "--config", p.file}, "new_ui")
	p.said(1, []string{"list", "--address", freeAddress(t)}, "no answer from the admin API", "is Caddy running?")
	p.said(1, []string{"list", "--config", filepath.Join(p.dir, "none")}, "none")
	p.said(1, []string{"list", "--address", strings.TrimPrefix(p.site, "http://")})
	for _, args := range [][]string{{"list", "extra"}, {"show"}, {"show", "a", "b"}, {"enable"}, {"list", "--nonsense"}, {"audit", "--limit", "many"}} {
		if out, errs, status := p.command("", p.at(args...)...); status != 1 || errs == "" {
			t.Errorf("%v: status %d, %q, %q: want 1 and what is wrong", args, status, out, errs)
		}
	}
	p.said(1, p.at("dsable", "new_ui"), `unknown command "dsable"`, `did you mean "disable"?`)
	p.said(0, nil, "Available Commands", "evaluate", "watch")

	// Lint, with what the running Caddy knows.
	p.said(0, p.at("lint"))
	p.write("features.json", `{"new_ui": {"active": true, "deactivation_date": "2020-01-01"}}`)
	eventually(t, 3*time.Second, "lint does not warn of a flag that has expired", func() bool {
		out, _, status := p.command("", p.at("lint")...)
		return status == 1 && strings.Contains(out, "features.json:1:") && strings.Contains(out, `warning: flag "new_ui"`) && strings.Contains(out, "(expired)")
	})
}

func TestCommandsOffline(t *testing.T) {
	p := newProcess(t, "", `{
  "plain": {"active": true},
  "staged": {"active": true, "environments": ["staging"], "percentage_rollout": 30},
  "later": {"active": true, "activation_date": "2030-01-01"},
  "paint": {"active": true, "variants": {"red": {"weight": 100, "value": {"hex": "#f00"}}, "off": {"weight": 0, "value": 0}}},
  "ruled": {"active": true, "rules": [{"name": "home", "when": "region == \"RO\"", "serve": "on"}], "regions": ["US"]}
}`, nil)
	file := filepath.Join(p.dir, "features.json")
	offline := func(args ...string) []string { return append([]string{"evaluate", "--flags", file}, args...) }
	p.said(0, offline("plain"), "plain: on (STATIC)")
	p.said(0, offline(), "plain: on", "staged: off (DISABLED environment)", "later: off (DISABLED not_yet_active)", "paint: red")
	p.said(0, offline("staged", "--environment", "staging", "--context", `{"user_id": 7}`), "(SPLIT rollout)", "✓")
	p.said(0, offline("staged", "--environment", "staging"), "staged: off (ERROR TARGETING_KEY_MISSING)")
	for _, at := range []string{"2030-01-01T00:00:00Z", "2030-01-01T02:00:00+02:00", "2030-01-01T00:00:00", "2030-01-01"} {
		p.said(0, offline("later", "--at", at), "later: on (STATIC)")
	}
	p.said(0, offline("later", "--at", "2029-12-31T23:59:59Z"), "later: off")
	p.said(1, offline("later", "--at", "tomorrow"), `--at: want a time as 2026-01-31T12:00:00Z, got "tomorrow"`)
	p.said(0, offline("ruled", "--context", `{"region": "RO"}`), "(TARGETING_MATCH rule:home)")
	p.said(0, offline("ruled", "--context", `{"region": "\u001b[2JUS"}`), "(DEFAULT region)", "[2JUS")
	p.said(1, offline("nope"), "FLAG_NOT_FOUND")
	p.said(1, offline("plain", "--context", `[1]`), "--context: want a JSON object")
	p.said(1, offline("plain", "--context", `{"user_id": 7} and more`), "--context: text after the JSON object")
	p.said(1, offline("plain", "--context", `{}`, "--contexts", "-"), "context")
	p.said(1, []string{"evaluate", "--flags", file + ".none"}, "features.json.none")
	p.said(1, offline("--contexts", file+".none"), "features.json.none")

	var explained struct {
		Decisions map[string]struct {
			Path []struct{ Check string }
		}
	}
	out := p.said(0, offline("staged", "--json"))
	if err := json.Unmarshal([]byte(out), &explained); err != nil || len(explained.Decisions["staged"].Path) == 0 {
		t.Errorf("evaluate --json tells no path: %v: %s", err, out)
	}

	// Lines: defaults from the flags, a bad line is told with its number and the
	// others go on.
	in := strings.Join([]string{
		`{"context": {"user_id": 7}}`, `{"context": {"user_id": 7}, "environment": "staging", "at": "2031-01-01T00:00:00Z"}`,
		`{"context": {"user_id": 7`, `{"contexts": {}}`, `{"context": {}} {}`, `{"context": {}}}`, `{"context": {}, "at": 12}`, `[]`, `{}`,
	}, "\n")
	out, errs, status := p.command(in, offline("--contexts", "-", "staged", "later", "paint")...)
	lines := slices.Collect(strings.Lines(out))
	if status != 1 || len(lines) != 3 {
		t.Fatalf("status %d, %d lines, want 1 and 3:\n%s%s", status, len(lines), out, errs)
	}
	if want := `{"decisions":{"later":{"enabled":false,"variant":"off","reason":"DISABLED","detail":"not_yet_active"},"paint":{"enabled":true,"variant":"red","reason":"SPLIT","detail":"variants","value":{"hex":"#f00"}},"staged":{"enabled":false,"variant":"off","reason":"DISABLED","detail":"environment"}}}` + "\n"; lines[0] != want && !strings.Contains(lines[0], `"paint":{"enabled":true,"variant":"red","reason":"STATIC","detail":"","value":{"hex":"#f00"}}`) {
		t.Errorf("the first line is\n%s, want\n%s", lines[0], want)
	}
	for _, want := range []string{"-:3: ", "-:4: unknown field \"contexts\"; there are context, environment, at, flags", "-:5: text after", "-:6: ", "-:7: at: want a time", "-:8: want a JSON object, got array", "6 lines were not read"} {
		if !strings.Contains(errs, want) {
			t.Errorf("the errors do not say %q:\n%s", want, errs)
		}
	}
	if out, _, _ := p.command(`{}`, offline("--contexts", "-", "plain", "--explain")...); !strings.Contains(out, `"path":[`) {
		t.Errorf("--explain adds no path: %s", out)
	}
	if out, _, _ := p.command(`{}`, offline("--contexts", "-", "staged", "--environment", "staging", "--at", "2030-02-02")...); !strings.Contains(out, `"error_code":"TARGETING_KEY_MISSING"`) {
		t.Errorf("--environment is not the default of lines: %s", out)
	}

	p.said(0, []string{"lint", "--flags", file})
	p.write("warned.json", `{"old": {"active": true, "deactivation_date": "2020-01-01"}, "all": {"active": true}}`)
	p.said(1, []string{"lint", "--flags", filepath.Join(p.dir, "warned.json")}, `warning: flag "old"`, "(expired)", `info: flag "all"`)
	if out := p.said(1, []string{"lint", "--json", "--flags", filepath.Join(p.dir, "warned.json")}); !strings.Contains(out, `"code":"expired"`) {
		t.Errorf("lint --json: %s", out)
	}
	p.write("info.json", `{"all": {"active": true}}`)
	p.said(0, []string{"lint", "--flags", filepath.Join(p.dir, "info.json")}, "(always_on)")
	p.write("bad.json", `{"a": {"active": 1}, "b": {}}`)
	p.said(1, []string{"lint", "--flags", filepath.Join(p.dir, "bad.json")}, `flag "a": active`, `flag "b"`)
}

// watching runs `watch` until the test ends; next waits for a line that holds
// the text.
func (p *process) watching(args ...string) (next func(text string) string) {
	p.t.Helper()
	cmd := newCaddy(p, append([]string{"feature-flags", "watch"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	errs := &lockedBuffer{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	eventually(p.t, 5*time.Second, "watch does not say that it watches", func() bool { return strings.Contains(errs.String(), "watching") })
	return func(text string) string {
		p.t.Helper()
		limit := time.After(10 * time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					p.t.Fatalf("watch ended without %q: %s", text, errs)
				}
				if strings.Contains(line, text) {
					return line
				}
			case <-limit:
				p.t.Fatalf("watch does not print %q", text)
			}
		}
	}
}

// A terminal that watches sees everything, over reloads and a restart.
func TestWatch(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	p.run()
	next := p.watching("--address", p.admin)
	nextJSON := p.watching("--address", p.admin, "--json")
	p.trip()
	if line := next("feature_flags.tripped"); !strings.Contains(line, "new_ui") || !strings.Contains(line, "3 canary requests failed") {
		t.Errorf("watch prints %q", line)
	}
	var n struct {
		Event, Flag, By string
		Data            struct{ Durable bool }
	}
	if line := nextJSON("tripped"); json.Unmarshal([]byte(line), &n) != nil || n.Event != "feature_flags.tripped" || n.Flag != "new_ui" || n.By != "guard" || !n.Data.Durable {
		t.Errorf("watch --json prints %s", line)
	}
	p.said(0, p.at("reset", "new_ui", "--reason", "it \x1b[5mblinks"))
	if line := next("feature_flags.reset"); !strings.Contains(line, "blinks") || strings.ContainsRune(line, '\x1b') {
		t.Errorf("watch prints %q", line)
	}

	// A reload ends the stream; what happens before watch is back is not lost.
	for range 3 {
		p.reload()
		p.said(0, p.at("disable", "new_ui"))
		next("feature_flags.overridden")
		nextJSON("feature_flags.overridden")
	}
	p.write("features.json", `{"new_ui": {"active": true, "percentage_rollout": 100}}`)
	next("feature_flags.reloaded")
	p.write("features.json", `{"new_ui": {"active": "yes"}}`)
	next("feature_flags.reload_failed")

	p.said(0, p.at("enable", "new_ui"))
	next("feature_flags.overridden")

	p.kill()
	p.write("features.json", oneFlag)
	p.run()
	time.Sleep(2 * time.Second) // until watch has tried again
	p.said(0, p.at("reset", "new_ui"))
	next("feature_flags.reset")
}

// reload runs `caddy reload`.
func (p *process) reload() {
	p.t.Helper()
	if out, err := newCaddy(p, "reload", "--force", "--config", p.file, "--address", p.admin).CombinedOutput(); err != nil {
		p.t.Fatalf("caddy reload: %v\n%s", err, out)
	}
}

// What stands in the repository's root is right: the modules are there, the
// example is formatted and valid.
func TestExampleAndModules(t *testing.T) {
	p := newProcess(t, "", "", nil)
	out, err := newCaddy(p, "list-modules").Output()
	if err != nil {
		t.Fatal(err)
	}
	var modules strings.Builder // as `| grep feature` in xcaddy.md
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "feature") {
			modules.WriteString(line)
		}
	}
	if text, err := os.ReadFile("../xcaddy.md"); err != nil || modules.Len() == 0 || !strings.Contains(string(text), "```text\n"+modules.String()+"```") {
		t.Errorf("xcaddy.md does not show what caddy list-modules prints, %v:\n%s", err, modules.String())
	}
	want, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	format := newCaddy(p, "fmt", "Caddyfile.example")
	format.Dir = ".."
	if got, err := format.Output(); err != nil || string(got) != string(want) {
		t.Errorf("caddy fmt changes Caddyfile.example: %v\n%s", err, got)
	}
	validate := newCaddy(p, "validate", "--config", "Caddyfile.example")
	validate.Dir = ".."
	if out, err := validate.CombinedOutput(); err != nil {
		t.Errorf("caddy validate --config Caddyfile.example: %v\n%s", err, out)
	}
}
