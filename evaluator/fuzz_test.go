package evaluator

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// richFlags has a flag for every stage of the cascade.
const richFlags = `{"version": 1,
	"segments": {"eu": "region in ['RO', 'DE']", "staff": {"users": ["1", "ana"], "when": "role == 'staff' || segment('eu')"}},
	"flags": {
		"off": {"active": false},
		"on": {"active": true, "environments": ["production", "staging"]},
		"dated": {"active": true, "activation_date": "2026-01-01", "deactivation_date": "2027-01-01T00:00:00+02:00"},
		"listed": {"active": true, "users": ["ana", 7, true], "regions": ["RO"], "account_types": ["premium"], "devices": ["mobile"], "beta_program": true},
		"split": {"active": true, "percentage_rollout": 12.345},
		"company": {"active": true, "percentage_rollout": 50, "hash_by": "company", "salt": "pepper"},
		"colour": {"active": true, "users": ["ana"], "variants": {"green": {"weight": 30, "value": "g"}, "blue": {"weight": 20.5}, "off": {"weight": 49.5}}},
		"ruled": {"active": true, "percentage_rollout": 5, "rules": [
			{"name": "new app", "when": "semver(app) >= semver('2.1') && size(tags) > 1", "serve": "off"},
			{"when": "segment('staff') || attributes['x-y'] == 'z' || 'q' in attributes", "serve": {"on": 20, "off": 80}},
			{"when": "tags.exists(t, t.startsWith('a')) && int(age) / int(zero) > 18 && name.matches('^(a+)+$')"}]},
		"needs": {"active": true, "depends_on": {"colour": "green", "split": true}},
		"a": {"active": true, "exclusive": "g", "percentage_rollout": 60},
		"b": {"active": true, "exclusive": "g", "users": ["ana"]},
		"c": {"active": true, "exclusive": "g", "depends_on": ["on"]},
		"spare": {"active": true, "fallback_for": "split"}
	}}`

func FuzzEvaluate(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"user_id": 7, "region": "RO"}`, `{"targetingKey": "ana", "role": "staff"}`, `{"user_id": "", "beta_program": true}`,
		`{"user_id": 9007199254740993, "tags": ["a", 1, null], "age": "17", "zero": 0, "name": "aaaaaaaaaaaaaaaaaaaaaaaa!"}`,
		`{"app": "2.1.0-rc.1", "tags": {"a": 1, "b": 2}, "company": [1], "x-y": "z"}`, `{"user_id": 1e400, "region": {"a": []}}`, `{"app": 2.1, "user_id": {}}`,
	} {
		f.Add([]byte(seed), "production", int64(0))
	}
	program := mustRules(f, richFlags).Program()
	rulesets := []*Ruleset{program.With(nil), program.With(map[string]State{"split": {Tripped: "errors"}, "off": {Override: Enabled}, "on": {Override: Disabled}, "a": {Share: new(Share)}})}
	base := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, attributes []byte, environment string, shift int64) {
		ctx := Context{Environment: environment}
		if json.Unmarshal(attributes, &ctx) != nil {
			return
		}
		now := base.Add(time.Duration(shift))
		for _, r := range rulesets {
			var all Evaluation
			all.Reset(r, &ctx, now)
			enabledInGroup := 0
			for i, d := range all.All() {
				if d.Enabled != (d.Variant != Off) || !slices.Contains(Reasons[:], d.Reason) || d.Flag != r.Definition(i).Name {
					t.Fatalf("decision %+v", d)
				}
				if (d.Reason == ReasonError) != (d.Code != "") || d.Index < 0 || r.Variants(i)[d.Index] != d.Variant {
					t.Fatalf("decision %+v", d)
				}
				if d.Enabled && r.Definition(i).Exclusive != "" {
					enabledInGroup++
				}
				again, path := all.Explain(i)
				if alone := r.EvaluateAt(i, &ctx, now); alone.Variant != d.Variant || alone.Detail != d.Detail || again.Variant != d.Variant || again.Detail != d.Detail || len(path) == 0 {
					t.Fatalf("flag %s: together %+v, alone %+v, explained %+v by %v", d.Flag, d, alone, again, path)
				}
				if (d.Reason == ReasonSplit || d.Reason == ReasonError) && ctx.TargetingKey() == "" && d.Enabled && d.Flag != "company" {
					t.Fatalf("flag %s is on for nobody: %+v", d.Flag, d)
				}
			}
			if enabledInGroup > 1 {
				t.Fatalf("%d flags of one exclusive group are on", enabledInGroup)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(richFlags))
	f.Add([]byte(wholeJSON))
	f.Add([]byte(wholeYAML))
	seeds, err := filepath.Glob("testdata/mistakes/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range seeds {
		if filepath.Ext(path) == ".txt" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 4096 {
			f.Add(text)
		}
	}
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 16<<10 {
			return
		}
		doc, err := Decode("f", text)
		if err != nil {
			checkPositions(t, text, err.(Errors))
			_ = err.Error()
		} else {
			checkRaw(t, doc)
		}
		if doc == nil {
			return
		}
		program, err := Compile(doc)
		if err != nil {
			_ = err.Error()
			return
		}
		ctx := NewContext("production", map[string]any{"user_id": "ana", "region": "RO"})
		var e Evaluation
		for _, r := range []*Ruleset{program.With(nil), program.With(map[string]State{"a": {Tripped: "errors"}})} {
			e.Reset(r, ctx, now)
			for i, d := range e.All() {
				if d == nil || d.Enabled != (d.Variant != Off) {
					t.Fatalf("decision %+v", d)
				}
				e.Explain(i)
				r.Reads(i)
			}
			Lint(r, now, nil)
		}
	})
}
