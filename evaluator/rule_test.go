package evaluator

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRules(t *testing.T) {
	ruled := func(rules string) string {
		return `{"f": {"active": true, "percentage_rollout": 0, "rules": ` + rules + `, "variants": {"on": {"weight": 100}, "blue": {"weight": 0}}}}`
	}
	runStages(t, []stage{
		{name: "the first that holds", flags: ruled(`[{"name": "no", "when": "false"}, {"name": "yes", "when": "region == 'RO'", "serve": "blue"}, {"name": "all", "when": true}]`), ctx: `{"region": "RO"}`, want: "blue TARGETING_MATCH rule:yes"},
		{name: "the next", flags: ruled(`[{"name": "no", "when": "false"}, {"name": "yes", "when": "region == 'RO'", "serve": "blue"}, {"name": "all", "when": true}]`), ctx: `{"region": "US"}`, want: "on TARGETING_MATCH rule:all"},
		{name: "numbered", flags: ruled(`[{"when": "false"}, {"when": "true"}]`), want: "on TARGETING_MATCH rule:2"},
		{name: "off by a rule", flags: ruled(`[{"when": "true", "serve": "off"}]`), want: "off TARGETING_MATCH rule:1"},
		{name: "none holds", flags: ruled(`[{"when": "region == 'RO'"}]`), ctx: `{"user_id": "ana"}`, want: "off SPLIT rollout"},
		{name: "a listed user before the rules", flags: `{"f": {"active": true, "users": ["ana"], "rules": [{"when": "true", "serve": "off"}]}}`, ctx: `{"user_id": "ana"}`, want: "on TARGETING_MATCH user"},
		{name: "weights without a key", flags: ruled(`[{"when": "true", "serve": {"blue": 50, "on": 50}}]`), want: "off ERROR TARGETING_KEY_MISSING"},
		{name: "weights on one", flags: ruled(`[{"when": "true", "serve": {"blue": 100, "on": 0}}]`), want: "blue TARGETING_MATCH rule:1"},
	})
}

func TestConditions(t *testing.T) {
	f := func(when, ctx string, want bool) {
		t.Helper()
		text := `{"segments": {"staff": {"users": [1, "2", ""]}, "eu": "region in ['RO', 'DE']", "eu_staff": {"when": "segment('eu') && segment('staff')"}, "tagged": "'x' in tags"}, "flags": {"f": {"active": true, "percentage_rollout": 0, "rules": [{"when": ` + strconv.Quote(when) + `}]}}}`
		r := compileText(t, text).With(nil)
		c := contextOf(t, "", ctx)
		c.Set("hash", String("x")) // whatever is missing, the rollout of 0 has its say
		d := decideEveryWay(t, r, 0, c, time.Now())
		if d.Enabled != want || d.Enabled && d.Detail != "rule:1" {
			_, steps := evaluation(r, c).Explain(0)
			t.Errorf("%s of %s: %s, want %t: %v", when, ctx, summary(d), want, steps)
		}
	}
	f(`region == "RO"`, `{"region": "RO"}`, true)
	f(`region == "RO"`, `{"region": "US"}`, false)

	// A missing attribute makes its term neither true nor false.
	f(`region == "RO"`, `{}`, false)
	f(`region != "RO"`, `{}`, false)
	f(`!(region == "RO")`, `{}`, false)
	f(`region == "RO" || device == "mobile"`, `{"device": "mobile"}`, true)
	f(`device == "mobile" || region == "RO"`, `{"device": "mobile"}`, true)
	f(`region == "RO" && device == "mobile"`, `{"device": "mobile"}`, false)
	f(`!(region == "RO" && device == "mobile")`, `{"device": "desktop"}`, true)
	f(`region == "RO" ? false : true`, `{}`, false)
	f(`"region" in attributes`, `{}`, false)
	f(`!("region" in attributes)`, `{}`, true)
	f(`"region" in attributes`, `{"region": "RO"}`, true)
	f(`"region" in attributes`, `{"region": ""}`, false)
	f(`attributes["region"] == "RO"`, `{"region": "RO"}`, true)
	f(`attributes.region == "RO"`, `{"region": "RO"}`, true)
	f(`attributes["app.version"] == "1"`, `{"app.version": "1"}`, true)
	f(`has(attributes.region)`, `{"region": "RO"}`, true)
	f(`has(attributes.region)`, `{}`, false)

	// So does one of another type.
	f(`region > 3`, `{"region": "RO"}`, false)
	f(`age >= 18`, `{"age": 20}`, true)
	f(`age >= 18`, `{"age": "20"}`, false)
	f(`int(age) >= 18`, `{"age": "20"}`, true)
	f(`int(age) >= 18`, `{"age": "old"}`, false)
	f(`age >= 17.5`, `{"age": 18}`, true)
	f(`age == 18`, `{"age": 18.0}`, true)
	f(`user_id == 7`, `{"user_id": 7}`, true)
	f(`user_id == 7`, `{"user_id": "7"}`, false)
	f(`string(user_id) == "7"`, `{"user_id": 7}`, true)
	f(`region`, `{"region": true}`, true)
	f(`region`, `{"region": "true"}`, false)
	f(`beta_program`, `{"beta_program": true}`, true)
	f(`1 / zero == 1 || true`, `{"zero": 0}`, true)
	f(`1 / zero == 1`, `{"zero": 0}`, false)

	// Functions.
	f(`region in ["RO", "DE"]`, `{"region": "DE"}`, true)
	f(`user_id.startsWith("a") && user_id.endsWith("z") && user_id.contains("q")`, `{"user_id": "aqz"}`, true)
	f(`user_id.matches("^[a-z]+$")`, `{"user_id": "ana"}`, true)
	f(`user_id.matches("^[a-z]+$")`, `{"user_id": "Ana"}`, false)
	f(`user_id.lowerAscii() == "ana"`, `{"user_id": "ANA"}`, true)
	f(`size(tags) == 2 && "b" in tags`, `{"tags": ["a", "b"]}`, true)
	f(`tags.exists(x, x == "a") && x == "b"`, `{"tags": ["a"], "x": "b"}`, true)
	f(`tags.all(t, t.startsWith("a"))`, `{"tags": ["a1", "a2"]}`, true)
	f(`user.plan == "pro" && user.seats > 3`, `{"user": {"plan": "pro", "seats": 5}}`, true)
	f(`has(user.plan) && user.plan == "pro"`, `{"user": {}}`, false)
	f(`sets.contains(tags, ["a"])`, `{"tags": ["a", "b"]}`, true)
	f(`timestamp(since) < timestamp("2026-01-01T00:00:00Z")`, `{"since": "2025-06-01T00:00:00Z"}`, true)
	f(`size == 3`, `{"size": 3}`, true)

	// Versions.
	f(`semver(app) >= semver("2.1")`, `{"app": "2.1.0"}`, true)
	f(`semver(app) >= semver("2.1")`, `{"app": "2.1.0-rc.1"}`, false)
	f(`semver(app) >= semver("2.1")`, `{"app": "10.0"}`, true)
	f(`semver(app) == semver("2")`, `{"app": 2}`, true)
	f(`semver(app) < semver("2.1")`, `{"app": 2.05}`, false) // 2.05 is 2.5
	f(`semver(app) >= semver("2.1")`, `{"app": "new"}`, false)
	f(`semver(app) < semver("2.1")`, `{"app": "new"}`, false)
	f(`semver(app) >= semver("2.1")`, `{}`, false)
	f(`semver(app) >= semver("2.1")`, `{"app": true}`, false)

	// Segments.
	f(`segment("staff")`, `{"user_id": 1}`, true)
	f(`segment("staff")`, `{"user_id": "2"}`, true)
	f(`segment("staff")`, `{"user_id": 3}`, false)
	f(`segment("staff")`, `{}`, false) // an empty key is nobody's
	f(`!segment("staff")`, `{}`, true)
	f(`segment("eu")`, `{"region": "RO"}`, true)
	f(`!segment("eu")`, `{}`, true)
	f(`segment("eu_staff")`, `{"region": "RO", "user_id": 1}`, true)
	f(`segment("eu_staff")`, `{"region": "US", "user_id": 1}`, false)
	f(`segment("tagged")`, `{"tags": ["x"]}`, true)
	f(`segment("tagged")`, `{"tags": 3}`, false)

	// A client's context cannot forge what is ours.
	f(`segment("staff")`, `{"@segment_7374616666": true}`, false)
	f(`"region" in attributes`, `{"attributes": {"region": "RO"}}`, false)
}

func evaluation(r *Ruleset, c *Context) *Evaluation {
	e := &Evaluation{}
	e.Reset(r, c, time.Now())
	return e
}

func TestReads(t *testing.T) {
	f := func(flag string, want ...string) {
		t.Helper()
		r := compileText(t, `{"segments": {"eu": "region in ['RO', 'DE']", "staff": {"users": [1]}, "both": "segment('eu') && segment('staff')", "odd": "attributes['app.version'] == '1'"}, "flags": {
			"f": `+flag+`, "rolled": {"active": true, "percentage_rollout": 5, "hash_by": "company"}, "one": {"active": true, "exclusive": "g", "devices": ["mobile"]}, "plain": {"active": true}}}`).With(nil)
		if got := r.Reads(r.Index("f")); !slices.Equal(got, want) {
			t.Errorf("%s reads %v, want %v", flag, got, want)
		}
	}
	f(`{"active": true}`)
	f(`{"active": true, "percentage_rollout": 100}`)
	f(`{"active": true, "percentage_rollout": 10}`, "user_id")
	f(`{"active": true, "percentage_rollout": 10, "hash_by": "company"}`, "company")
	f(`{"active": true, "users": ["ana"]}`, "user_id")
	f(`{"active": true, "regions": ["RO"], "account_types": ["a"], "devices": ["mobile"], "beta_program": true}`, "account_type", "beta_program", "device", "region")
	f(`{"active": true, "depends_on": ["rolled", "plain"]}`, "company")
	f(`{"active": true, "exclusive": "g"}`, "device", "user_id")
	f(`{"active": true, "variants": {"a": {"weight": 50}, "b": {"weight": 50}}}`, "user_id")
	f(`{"active": true, "rules": [{"when": "segment('both')"}]}`, "region", "user_id")
	f(`{"active": true, "rules": [{"when": "segment('odd')"}]}`, "app.version")
	f(`{"active": true, "rules": [{"when": "has(attributes.plan) && 'x' in attributes"}]}`, "plan", "x")
	f(`{"active": true, "rules": [{"when": "size(attributes) > 3"}]}`, "*")
	f(`{"active": true, "rules": [{"when": "attributes[region] == 3"}]}`, "*", "region")
	f(`{"active": true, "rules": [{"when": "user.plan == 'a' && tags.exists(t, t == device)"}]}`, "device", "tags", "user")
	f(`{"active": true, "rules": [{"when": "['a'].exists(attributes, attributes == region)"}]}`, "region")
	f(`{"active": true, "rules": [{"when": "region == 'RO'", "serve": {"on": 50, "off": 50}}]}`, "region", "user_id")
}

// TestRuleVariant: a rule that says nothing about variants gives a user the
// variant that the rollout gives, and one with weights deals them out anew.
func TestRuleVariant(t *testing.T) {
	r := compileText(t, `{"f": {"active": true, "variants": {"a": {"weight": 50}, "b": {"weight": 50}}, "rules": [
		{"name": "same", "when": "region == 'RO'"}, {"name": "anew", "when": "region == 'DE'", "serve": {"a": 50, "b": 50}}]}}`).With(nil)
	differ := 0
	for k := range 1000 {
		c := &Context{}
		c.Set(UserID, String("u"+strconv.Itoa(k)))
		plain := r.EvaluateAt(0, c, time.Now()).Variant
		c.Set(Region, String("RO"))
		if d := r.EvaluateAt(0, c, time.Now()); d.Detail != "rule:same" || d.Variant != plain {
			t.Fatalf("user %d: %s by the rule, %s without", k, summary(d), plain)
		}
		c.Set(Region, String("DE"))
		if d := r.EvaluateAt(0, c, time.Now()); d.Variant != plain {
			differ++
		}
	}
	if differ < 400 || differ > 600 {
		t.Errorf("%d of 1000 users have another variant by the weighted rule, want about half", differ)
	}
}

// TestConditionThatCostsTooMuch: it turns its own flag off and leaves the
// others alone.
func TestConditionThatCostsTooMuch(t *testing.T) {
	r := compileText(t, `{"f": {"active": true, "rules": [{"when": "tags.all(a, tags.all(b, tags.all(c, a + b + c != 'x')))"}]}, "g": {"active": true}}`).With(nil)
	tags := make([]any, 200)
	for i := range tags {
		tags[i] = strconv.Itoa(i)
	}
	c := NewContext("", map[string]any{"tags": tags})
	began := time.Now()
	d := decideEveryWay(t, r, 0, c, time.Now())
	if d.Enabled || d.Reason != ReasonError || d.Code != General || !strings.Contains(d.Message, "more than 10000 turns") {
		t.Errorf("%+v", d)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	if d := decideEveryWay(t, r, 1, c, time.Now()); !d.Enabled {
		t.Errorf("another flag: %s", summary(d))
	}
}

// TestLoopTurns: what a loop takes grows with its turns and no faster, up to their
// bound.
func TestLoopTurns(t *testing.T) {
	r := compileText(t, `{"f": {"active": true, "percentage_rollout": 0, "rules": [{"name": "r", "when": "groups.exists(g, g == 'last')", "serve": "on"}]}}`).With(nil)
	for n, want := range map[int]Reason{1: ReasonTargetingMatch, maxTurns - 1: ReasonTargetingMatch, maxTurns + 1: ReasonError} {
		groups := make([]any, n)
		for i := range groups {
			groups[i] = "g" + strconv.Itoa(i)
		}
		groups[n-1] = "last"
		c := NewContext("u1", map[string]any{"groups": groups})
		if d := decideEveryWay(t, r, 0, c, time.Now()); d.Reason != want {
			t.Errorf("%d groups: %+v, want %s", n, d, want)
		}
	}
}

// TestNestedSegments: a segment is asked once for each condition, however many
// ways lead to it.
func TestNestedSegments(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"segments": {"s0": "region == 'RO'"`)
	const depth = 60
	for i := 1; i <= depth; i++ {
		n := strconv.Itoa(i - 1)
		b.WriteString(`, "s` + strconv.Itoa(i) + `": "segment('s` + n + `') && segment('s` + n + `')"`)
	}
	b.WriteString(`}, "flags": {"f": {"active": true, "rules": [{"name": "deep", "when": "segment('s60')"}]}}}`)
	r := compileText(t, b.String()).With(nil)
	if d := r.EvaluateAt(0, contextOf(t, "", `{"region": "RO"}`), time.Now()); d.Detail != "rule:deep" {
		t.Error(summary(d))
	}
}

func TestVersions(t *testing.T) {
	ascending := []string{
		"0", "0.0.1", "0.1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
		"1.0.0-beta.11", "1.0.0-rc.1", "1", "1.0.1", "1.2", "1.10", "2", "10.0.0",
	} // semver.org 2.0.0, section 11
	for i, a := range ascending {
		for j, b := range ascending {
			x, err := parseVersion(a)
			y, err2 := parseVersion(b)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if got := x.compare(y); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s with %s: %d", a, b, got)
			}
		}
	}
	same := func(a, b string) {
		t.Helper()
		x, _ := parseVersion(a)
		y, _ := parseVersion(b)
		if x.compare(y) != 0 {
			t.Errorf("%s is not %s", a, b)
		}
	}
	same("1", "v1.0.0")
	same("1.2.3+build.7", "1.2.3")
	same("1.2.3-rc.1+build", "1.2.3-rc.1")
	bad := func(text string) {
		t.Helper()
		if v, err := parseVersion(text); err == nil {
			t.Errorf("%q is %v", text, v)
		}
	}
	bad("")
	bad("new")
	bad("1.2.3.4")
	bad("1..2")
	bad("-1")
	bad("1.99999999999999999999")
	bad("1,2")
}
