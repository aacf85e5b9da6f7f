package evaluator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLint(t *testing.T) {
	wrapped := func(segments, flags string) string { return `{"segments": ` + segments + `, "flags": ` + flags + `}` }
	for _, c := range []struct {
		name  string
		text  string
		state map[string]State
		want  []string // `flag code`, sorted
	}{
		{name: "nothing to say", text: `{"f": {"active": true, "percentage_rollout": 10}}`},
		{name: "off is off", text: `{"f": {"active": false, "percentage_rollout": 0, "regions": []}}`},
		{name: "off by hand", text: `{"f": {"active": true, "regions": []}}`, state: map[string]State{"f": {Override: Disabled}}},

		{name: "percentage 0", text: `{"f": {"active": true, "percentage_rollout": 0}}`, want: []string{"f never_on"}},
		{name: "percentage 0, raised by state", text: `{"f": {"active": true, "percentage_rollout": 0}}`, state: map[string]State{"f": {Share: share(5)}}},
		{name: "percentage 0, listed users", text: `{"f": {"active": true, "percentage_rollout": 0, "users": [1]}}`},
		{name: "percentage 0, a rule", text: `{"f": {"active": true, "percentage_rollout": 0, "rules": [{"when": "region == 'RO'"}]}}`},
		{name: "percentage 0, rules to off", text: `{"f": {"active": true, "percentage_rollout": 0, "rules": [{"when": "region == 'RO'", "serve": "off"}]}}`, want: []string{"f never_on"}},
		{name: "enabled by hand", text: `{"f": {"active": false, "percentage_rollout": 0}}`, state: map[string]State{"f": {Override: Enabled}}, want: []string{"f never_on"}},
		{
			name: "empty lists", text: `{"r": {"active": true, "regions": []}, "a": {"active": true, "account_types": []}, "d": {"active": true, "devices": []}, "e": {"active": true, "environments": []}, "u": {"active": true, "users": []}}`,
			want: []string{"a never_on", "d never_on", "e never_on", "r never_on", "u never_on"},
		},
		{name: "an empty list and listed users", text: `{"f": {"active": true, "regions": [], "users": [1]}}`},
		{name: "nowhere, for listed users neither", text: `{"f": {"active": true, "environments": [], "users": [1]}}`, want: []string{"f never_on"}},
		{name: "all weight on off", text: `{"f": {"active": true, "variants": {"off": {"weight": 100}, "on": {"weight": 0}}}}`, want: []string{"f never_on"}},
		{
			name: "a dependency never on", text: `{"f": {"active": true, "percentage_rollout": 5, "depends_on": ["g"]}, "g": {"active": true, "depends_on": ["h"]}, "h": {"active": true, "percentage_rollout": 0}}`,
			want: []string{"f never_on", "g never_on", "h never_on"},
		},
		{name: "a dependency that is off for now", text: `{"f": {"active": true, "depends_on": ["g"]}, "g": {"active": false}}`},
		{
			name: "a dependency's variant never served", text: `{"f": {"active": true, "depends_on": {"g": "b"}}, "g": {"active": true, "regions": ["RO"], "variants": {"a": {"weight": 100}, "b": {"weight": 0}}}}`,
			want: []string{"f never_on"},
		},
		{name: "a dependency's variant served by a rule", text: `{"f": {"active": true, "depends_on": {"g": "b"}}, "g": {"active": true, "variants": {"a": {"weight": 100}, "b": {"weight": 0}}, "rules": [{"when": "region == 'RO'", "serve": "b"}]}}`},
		{name: "off for everybody by a rule", text: `{"f": {"active": true, "rules": [{"when": "true", "serve": "off"}]}}`, want: []string{"f never_on"}},
		{name: "expired", text: `{"f": {"active": true, "deactivation_date": "2026-05-01"}, "g": {"active": true, "depends_on": ["f"]}}`, want: []string{"f expired", "g never_on"}},
		{name: "expired and inactive", text: `{"f": {"active": false, "deactivation_date": "2026-05-01"}}`, want: []string{"f expired"}},
		{name: "expires this instant", text: `{"f": {"active": true, "deactivation_date": "2026-06-01T12:00:00Z"}}`, want: []string{"f expired"}},

		{name: "always on", text: `{"f": {"active": true}}`, want: []string{"f always_on"}},
		{name: "always on at 100", text: `{"f": {"active": true, "percentage_rollout": 100, "activation_date": "2026-01-01"}}`, want: []string{"f always_on"}},
		{name: "always on by state", text: `{"f": {"active": true, "percentage_rollout": 5}}`, state: map[string]State{"f": {Share: share(100)}}, want: []string{"f always_on"}},
		{name: "always on, with rules that say so too", text: `{"f": {"active": true, "rules": [{"when": "region == 'RO'", "serve": "on"}]}}`, want: []string{"f always_on"}},
		{name: "rules to off", text: `{"f": {"active": true, "rules": [{"when": "region == 'RO'", "serve": "off"}]}}`},
		{name: "always one variant", text: `{"f": {"active": true, "variants": {"a": {"weight": 100}, "b": {"weight": 0}}}}`, want: []string{"f always_on"}},
		{name: "not always on", text: `{
			"later": {"active": true, "activation_date": "2026-07-01"}, "until": {"active": true, "deactivation_date": "2027-01-01"},
			"somewhere": {"active": true, "environments": ["production"]}, "after": {"active": true, "depends_on": ["regional"]}, "regional": {"active": true, "regions": ["RO"]},
			"standby": {"active": true, "fallback_for": "regional"}, "listed": {"active": true, "users": [1]}, "beta": {"active": true, "beta_program": true},
			"split": {"active": true, "variants": {"a": {"weight": 50}, "b": {"weight": 50}}}, "watched": {"active": true, "error_threshold": 10},
			"switch": {"active": true, "metadata": {"type": "operational"}}, "paid": {"active": true, "metadata": {"type": "permission"}}}`},

		{
			name: "metadata.expires", text: `{"past": {"active": false, "metadata": {"expires": "2026-05-31"}}, "soon": {"active": false, "metadata": {"expires": "2026-06-15"}}, "far": {"active": false, "metadata": {"expires": "2026-06-16"}}}`,
			want: []string{"past overdue", "soon expires_soon"},
		},

		{
			name: "behind a rule for everybody", text: `{"f": {"active": true, "percentage_rollout": 5, "rules": [{"when": "region == 'RO'"}, {"when": "true"}, {"when": "region == 'US'"}, {"when": "region == 'DE'"}]}}`,
			want: []string{"f unreachable_conditions", "f unreachable_rule", "f unreachable_rule"},
		},
		{name: "the same condition twice", text: `{"f": {"active": true, "percentage_rollout": 5, "rules": [{"when": "region == 'RO'"}, {"when": " region == 'RO' ", "serve": "off"}]}}`, want: []string{"f unreachable_rule"}},
		{name: "a condition that is false", text: `{"f": {"active": true, "percentage_rollout": 5, "rules": [{"when": "false"}]}}`, want: []string{"f unreachable_rule"}},

		{name: "a guard without a split", text: `{"f": {"active": true, "regions": ["RO"], "guard": {}}}`, want: []string{"f guard_without_split"}},
		{name: "a guard with a split", text: `{"f": {"active": true, "percentage_rollout": 5, "guard": {"min_users": 5}}}`},
		{name: "no guard", text: `{"f": {"active": true, "percentage_rollout": 5, "guard": false}}`},
		{name: "a rollout", text: `{"f": {"active": true, "percentage_rollout": 5, "rollout": {"steps": [5, 100]}, "guard": true}}`},
		{name: "approval of the last step", text: `{"f": {"active": true, "rollout": {"steps": [5, 100], "approve": [5, 100]}}}`, want: []string{"f approve_last"}},
		{name: "alone in its group", text: `{"f": {"active": true, "exclusive": "one"}, "g": {"active": true, "exclusive": "two"}, "h": {"active": true, "exclusive": "two"}}`, want: []string{"f exclusive_alone"}},
		{name: "segments", text: wrapped(`{"used": "true", "inner": "true", "by_inner": "segment('inner')", "idle": "true"}`, `{"f": {"active": true, "percentage_rollout": 5, "rules": [{"when": "segment('used') || segment('by_inner')"}]}}`), want: []string{" unused_segment"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Lint(compileText(t, c.text).With(c.state), at(t, ""), nil)
			got := make([]string, len(found))
			for i, f := range found {
				got[i] = f.Flag + " " + f.Code
				if f.Severity != Warning && f.Severity != Info || f.Message == "" || f.Source != "test" || f.Pos.Line < 1 {
					t.Errorf("%+v", f)
				}
				if strings.HasSuffix(f.Message, ".") || strings.ToLower(f.Message[:1]) != f.Message[:1] {
					t.Errorf("message %q", f.Message)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v\n%v", got, c.want, found)
			}
		})
	}
}

func TestLintUnused(t *testing.T) {
	r := compileText(t, `{"never": {"active": true, "percentage_rollout": 5}, "long_ago": {"active": true, "percentage_rollout": 5}, "lately": {"active": true, "percentage_rollout": 5}, "unknown": {"active": true, "percentage_rollout": 5}}`).With(nil)
	now := at(t, "")
	found := Lint(r, now, func(flag string) (time.Time, bool) {
		switch flag {
		case "never":
			return time.Time{}, true
		case "long_ago":
			return now.Add(-7*24*time.Hour - time.Second), true
		case "lately":
			return now.Add(-7 * 24 * time.Hour), true
		}
		return time.Time{}, false
	})
	var got []string
	for _, f := range found {
		got = append(got, f.Flag+": "+f.Code+": "+f.Message)
	}
	want := []string{
		"never: unused: nobody has asked for it since the start",
		"long_ago: unused: nobody has asked for it since 2026-05-25T11:59:59Z",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLintSources(t *testing.T) {
	decode := func(name, text string) *Document {
		doc, err := Decode(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	p, err := Compile(
		decode("b.json", "{\n \"f\": {\"active\": true, \"regions\": []},\n \"g\": {\"active\": true}}"),
		nil,
		decode("a.json", `{"f": {"active": true, "regions": ["RO"]}, "h": {"active": true}}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	r := p.With(nil)
	if got := r.Shadowed(); len(got) != 1 || got[0] != (Shadowed{"f", "b.json", "a.json", Position{2, 2}}) {
		t.Errorf("shadowed %v", got)
	}
	var lines []string
	for _, f := range Lint(r, at(t, ""), nil) {
		lines = append(lines, fmt.Sprintf("%s:%d:%d %s %s %s", f.Source, f.Pos.Line, f.Pos.Column, f.Flag, f.Code, f.Message))
	}
	want := []string{
		`a.json:1:44 h always_on serves "on" to everybody, always: nothing is left to decide`,
		`b.json:2:2 f shadowed is defined again in a.json, which wins`,
		`b.json:3:2 g always_on serves "on" to everybody, always: nothing is left to decide`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	text, err := json.Marshal(Lint(r, at(t, ""), nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	const wantJSON = `{"flag":"h","code":"always_on","severity":"info","message":"serves \"on\" to everybody, always: nothing is left to decide","source":"a.json","pos":{"line":1,"column":44}}`
	if string(text) != wantJSON {
		t.Errorf("got  %s\nwant %s", text, wantJSON)
	}
}
