package evaluator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// compileText compiles a document that must be without mistakes.
func compileText(tb testing.TB, text string) *Program {
	tb.Helper()
	doc, err := Decode("test", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	p, err := Compile(doc)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func contextOf(tb testing.TB, environment, text string) *Context {
	tb.Helper()
	c := &Context{Environment: environment}
	if text == "" {
		return c
	}
	if err := json.Unmarshal([]byte(text), c); err != nil {
		tb.Fatal(err)
	}
	return c
}

func at(tb testing.TB, text string) time.Time {
	tb.Helper()
	if text == "" {
		text = "2026-06-01T12:00:00Z"
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// summary gives a decision as `variant REASON detail`.
func summary(d *Decision) string {
	s := d.Variant + " " + string(d.Reason)
	if d.Detail != "" {
		s += " " + d.Detail
	}
	return s
}

// decideEveryWay decides flag i in every way there is, and checks that they
// agree and that the decision is a valid one.
func decideEveryWay(tb testing.TB, r *Ruleset, i int, c *Context, now time.Time) *Decision {
	tb.Helper()
	d := r.EvaluateAt(i, c, now)
	checkDecision(tb, r, i, d)
	var all Evaluation
	all.Reset(r, c, now)
	if other := all.All()[i]; !sameDecision(d, other) {
		tb.Fatalf("alone %s, with all %s", summary(d), summary(other))
	}
	if again := all.Decide(i); !sameDecision(d, again) {
		tb.Fatalf("alone %s, remembered %s", summary(d), summary(again))
	}
	explained, steps := all.Explain(i)
	if !sameDecision(d, explained) {
		tb.Fatalf("alone %s, explained %s", summary(d), summary(explained))
	}
	if len(steps) == 0 {
		tb.Fatalf("%s: explained by no steps", summary(d))
	}
	return d
}

func sameDecision(a, b *Decision) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return a.Flag == b.Flag && a.Index == b.Index && string(x) == string(y)
}

var knownReasons = []Reason{ReasonStatic, ReasonTargetingMatch, ReasonSplit, ReasonDefault, ReasonDisabled, ReasonError}

func checkDecision(tb testing.TB, r *Ruleset, i int, d *Decision) {
	tb.Helper()
	switch {
	case d.Flag != r.Definition(i).Name:
		tb.Fatalf("decision of %q on %q", d.Flag, r.Definition(i).Name)
	case d.Enabled != (d.Variant != Off):
		tb.Fatalf("%s: enabled %t", summary(d), d.Enabled)
	case !slices.Contains(knownReasons, d.Reason):
		tb.Fatalf("%s: unknown reason", summary(d))
	case d.Index < 0 || r.Variants(i)[d.Index] != d.Variant:
		tb.Fatalf("%s: index %d of %v", summary(d), d.Index, r.Variants(i))
	case (d.Reason == ReasonError) != (d.Code != "") || (d.Code != "") != (d.Message != ""):
		tb.Fatalf("%s: code %q, message %q", summary(d), d.Code, d.Message)
	case d.Enabled && (d.Reason == ReasonDisabled || d.Reason == ReasonDefault || d.Reason == ReasonError):
		tb.Fatalf("%s: enabled", summary(d))
	case d.Value != nil && !json.Valid(d.Value):
		tb.Fatalf("%s: value %s", summary(d), d.Value)
	case d.Detail == "" && d.Reason != ReasonStatic:
		tb.Fatalf("%s: no detail", summary(d))
	}
}

type stage struct {
	name  string
	flags string // of a document; the flag asked for is "f"
	ctx   string
	env   string // production unless given
	at    string
	state map[string]State
	want  string // `variant REASON detail`
}

func runStages(t *testing.T, stages []stage) {
	t.Helper()
	for _, s := range stages {
		t.Run(s.name, func(t *testing.T) {
			r := compileText(t, s.flags).With(s.state)
			env := s.env
			if env == "" {
				env = "production"
			}
			d := decideEveryWay(t, r, r.Index("f"), contextOf(t, env, s.ctx), at(t, s.at))
			if got := summary(d); got != s.want {
				t.Errorf("got  %s\nwant %s", got, s.want)
			}
		})
	}
}

func share(p float64) *Share { s := ShareOf(p); return &s }

func TestCascade(t *testing.T) {
	const everything = `{"f": {"active": true, "environments": ["production"], "activation_date": "2026-01-01", "deactivation_date": "2027-01-01",
		"depends_on": ["base"], "users": [7], "regions": ["RO"], "account_types": ["premium"], "devices": ["mobile"], "beta_program": true,
		"rules": [{"name": "staff", "when": "staff"}], "percentage_rollout": 50},
		"base": {"active": true, "regions": ["RO", "US"]}}`
	const good = `"region": "RO", "account_type": "premium", "device": "mobile", "beta_program": true`
	runStages(t, []stage{
		{name: "on for all", flags: `{"f": {"active": true}}`, want: "on STATIC"},
		{name: "on for all at 100 per cent", flags: `{"f": {"active": true, "percentage_rollout": 100}}`, want: "on STATIC"},
		{name: "inactive", flags: `{"f": {"active": false}}`, want: "off DISABLED inactive"},
		{name: "enabled by hand", flags: `{"f": {"active": false}}`, state: map[string]State{"f": {Override: Enabled}}, want: "on STATIC"},
		{name: "enabled by hand, targeting in force", flags: `{"f": {"active": false, "regions": ["RO"]}}`, state: map[string]State{"f": {Override: Enabled}}, want: "off DEFAULT region"},
		{name: "disabled by hand", flags: everything, ctx: `{"user_id": 7}`, state: map[string]State{"f": {Override: Disabled, Tripped: "errors"}}, want: "off DISABLED override"},
		{name: "tripped", flags: everything, ctx: `{"user_id": 7}`, state: map[string]State{"f": {Tripped: "errors"}}, want: "off DISABLED tripped:errors"},
		{name: "tripped and enabled by hand", flags: everything, ctx: `{"user_id": 7}`, state: map[string]State{"f": {Tripped: "latency", Override: Enabled}}, want: "off DISABLED tripped:latency"},
		{name: "tripped before inactive", flags: `{"f": {"active": false}}`, state: map[string]State{"f": {Tripped: "errors"}}, want: "off DISABLED tripped:errors"},
		{name: "inactive before the date", flags: `{"f": {"active": false, "activation_date": "2030-01-01"}}`, want: "off DISABLED inactive"},
		{name: "not yet active", flags: everything, ctx: `{"user_id": 7}`, at: "2025-12-31T23:59:59.999999999Z", want: "off DISABLED not_yet_active"},
		{name: "active from the very instant", flags: everything, ctx: `{"user_id": 7, "region": "RO"}`, at: "2026-01-01T00:00:00Z", want: "on TARGETING_MATCH user"},
		{name: "active to the last instant", flags: everything, ctx: `{"user_id": 7, "region": "RO"}`, at: "2026-12-31T23:59:59.999999999Z", want: "on TARGETING_MATCH user"},
		{name: "expired from the very instant", flags: everything, ctx: `{"user_id": 7, "region": "RO"}`, at: "2027-01-01T00:00:00Z", want: "off DISABLED expired"},
		{name: "another environment", flags: everything, ctx: `{"user_id": 7, "region": "RO"}`, env: "staging", want: "off DISABLED environment"},
		{name: "no environment", flags: `{"f": {"active": true, "environments": []}}`, want: "off DISABLED environment"},
		{name: "dependency off", flags: everything, ctx: `{"user_id": 7, "region": "DE"}`, want: "off DISABLED dependency:base"},
		{name: "listed user before all conditions", flags: everything, ctx: `{"user_id": 7, "region": "US"}`, want: "on TARGETING_MATCH user"},
		{name: "rule before the conditions", flags: everything, ctx: `{"user_id": 8, "region": "US", "staff": true}`, want: "on TARGETING_MATCH rule:staff"},
		{name: "region", flags: everything, ctx: `{"user_id": 8, "region": "US"}`, want: "off DEFAULT region"},
		{name: "account type", flags: everything, ctx: `{"user_id": 8, "region": "RO", "account_type": "free", "device": "desktop"}`, want: "off DEFAULT account_type"},
		{name: "account type missing", flags: everything, ctx: `{"user_id": 8, "region": "RO"}`, want: "off DEFAULT account_type"},
		{name: "device", flags: everything, ctx: `{"user_id": 8, "region": "RO", "account_type": "premium", "device": "desktop"}`, want: "off DEFAULT device"},
		{name: "beta program missing", flags: everything, ctx: `{"user_id": 8, "region": "RO", "account_type": "premium", "device": "mobile"}`, want: "off DEFAULT beta_program"},
		{name: "beta program false", flags: everything, ctx: `{"user_id": 8, "region": "RO", "account_type": "premium", "device": "mobile", "beta_program": "false"}`, want: "off DEFAULT beta_program"},
		{name: "no targeting key", flags: everything, ctx: `{` + good + `}`, want: "off ERROR TARGETING_KEY_MISSING"},
		{name: "in the rollout", flags: everything, ctx: `{"user_id": "u4", ` + good + `}`, want: "on SPLIT rollout"},
		{name: "out of the rollout", flags: everything, ctx: `{"user_id": "u1", ` + good + `}`, want: "off SPLIT rollout"},
		{name: "users are the only targeting", flags: `{"f": {"active": true, "users": ["ana"]}}`, ctx: `{"user_id": "bob"}`, want: "off DEFAULT user"},
		{name: "users are the only targeting, nobody known", flags: `{"f": {"active": true, "users": ["ana", ""]}}`, want: "off DEFAULT user"},
		{name: "users and a percentage of 100", flags: `{"f": {"active": true, "users": ["ana"], "percentage_rollout": 100}}`, ctx: `{"user_id": "bob"}`, want: "on STATIC"},
		{name: "users and a share by state", flags: `{"f": {"active": true, "users": ["ana"]}}`, ctx: `{"user_id": "bob"}`, state: map[string]State{"f": {Share: share(100)}}, want: "on STATIC"},
		{name: "users and beta_program false", flags: `{"f": {"active": true, "users": ["ana"], "beta_program": false}}`, ctx: `{"user_id": "bob"}`, want: "off DEFAULT user"},
		{name: "users and rules that do not hold", flags: `{"f": {"active": true, "users": ["ana"], "rules": [{"when": "region == 'RO'"}]}}`, ctx: `{"user_id": "bob"}`, want: "on STATIC"},
		{name: "percentage 0", flags: `{"f": {"active": true, "percentage_rollout": 0}}`, ctx: `{"user_id": "bob"}`, want: "off SPLIT rollout"},
		{name: "percentage 0 and a listed user", flags: `{"f": {"active": true, "percentage_rollout": 0, "users": ["bob"]}}`, ctx: `{"user_id": "bob"}`, want: "on TARGETING_MATCH user"},
		{name: "state of another flag", flags: `{"f": {"active": true}}`, state: map[string]State{"g": {Tripped: "errors"}}, want: "on STATIC"},
		{name: "an environment that is empty", flags: `{"f": {"active": true, "environments": ["production"]}}`, env: " ", want: "off DISABLED environment"},
		{name: "regions of many", flags: `{"f": {"active": true, "regions": ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]}}`, ctx: `{"region": "J"}`, want: "on STATIC"},
		{name: "regions of many, none", flags: `{"f": {"active": true, "regions": ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]}}`, ctx: `{"region": "K"}`, want: "off DEFAULT region"},
		{name: "regions empty", flags: `{"f": {"active": true, "regions": []}}`, ctx: `{"region": "RO"}`, want: "off DEFAULT region"},
		{name: "an empty text is a missing one", flags: `{"f": {"active": true, "regions": [""]}}`, ctx: `{"region": ""}`, want: "off DEFAULT region"},
		{name: "a list is no text", flags: `{"f": {"active": true, "regions": ["RO"]}}`, ctx: `{"region": ["RO"]}`, want: "off DEFAULT region"},
	})
}

func TestUnknownFlag(t *testing.T) {
	r := compileText(t, `{"f": {"active": true}}`).With(nil)
	d := r.Evaluate("g", &Context{}, time.Now())
	if got, want := summary(d), "off ERROR FLAG_NOT_FOUND"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d.Enabled || d.Code != FlagNotFound || d.Index != -1 || d.Message != `flag "g" is not defined` {
		t.Errorf("%+v", d)
	}
	if r.Index("g") != -1 {
		t.Error("an unknown flag has a number")
	}
}

func TestDates(t *testing.T) {
	f := func(date, at, want string) {
		t.Helper()
		runStages(t, []stage{{name: date + " at " + at, flags: `{"f": {"active": true, "activation_date": "` + date + `"}}`, at: at, want: want}})
	}
	const before, on = "off DISABLED not_yet_active", "on STATIC"
	for _, utc := range []string{"2026-03-01T00:00:00Z", "2026-03-01T00:00:00", "2026-03-01", "2026-03-01 00:00:00", "2026-03-01T00:00", "2026-03-01T02:00:00+02:00", "2026-02-28T19:00:00-05:00", "2026-03-01T00:00Z", "2026-03-01T02:00:00.000+02:00"} {
		f(utc, "2026-02-28T23:59:59Z", before)
		f(utc, "2026-03-01T00:00:00Z", on)
		f(utc, "2026-03-01T02:30:00+02:30", on)
	}
	f("2026-03-01T00:00:00.5Z", "2026-03-01T00:00:00.499Z", before)
	f("2026-03-01T00:00:00.5Z", "2026-03-01T00:00:00.5Z", on)
	f("0001-01-02", "1600-01-01T00:00:00Z", on) // further away than an int64 of nanoseconds reaches
	f("9999-12-31", "2026-01-01T00:00:00Z", before)
	f("2026-01-01", "3000-01-01T00:00:00Z", on)
	f("2026-01-01", "1000-01-01T00:00:00Z", before)
}

func TestKeysCompareAsText(t *testing.T) {
	f := func(listed, key string, want bool) {
		t.Helper()
		r := compileText(t, `{"f": {"active": true, "users": [`+listed+`]}}`).With(nil)
		c := contextOf(t, "", `{"user_id": `+key+`}`)
		if got := decideEveryWay(t, r, 0, c, time.Now()); got.Enabled != want {
			t.Errorf("users [%s], user_id %s: %s, want %t", listed, key, summary(got), want)
		}
	}
	f(`7`, `7`, true)
	f(`7`, `"7"`, true)
	f(`"7"`, `7`, true)
	f(`7`, `7.0`, true)
	f(`7.0`, `"7"`, true)
	f(`7e0`, `7`, true)
	f(`1e3`, `1000`, true)
	f(`7`, `"07"`, false)
	f(`7`, `-7`, false)
	f(`-0`, `0`, true)
	f(`0.1`, `1e-1`, true)
	f(`true`, `true`, true)
	f(`true`, `"true"`, true)
	f(`9007199254740993`, `9007199254740993`, true) // 2^53+1 has no float64
	f(`9007199254740993`, `9007199254740992`, false)
	f(`9223372036854775807`, `"9223372036854775807"`, true)
	f(`18446744073709551616`, `"18446744073709551616"`, true)
	f(`123456789012345678901234567890`, `123456789012345678901234567890`, true)
	f(`123456789012345678901234567890`, `123456789012345678901234567891`, false)
	f(`"7"`, `null`, false)
	f(`"7"`, `["7"]`, false)
	f(`"Ana"`, `"ana"`, false)
	f(`"ană"`, `"ană"`, true)
	f(`"a\u0000"`, `"a"`, false)
}

func TestTargetingKeyIsUserID(t *testing.T) {
	r := compileText(t, `{"f": {"active": true, "users": ["ana"], "hash_by": "targetingKey", "percentage_rollout": 50}, "r": {"active": true, "rules": [{"when": "targetingKey == 'ana'", "serve": "off"}]}}`).With(nil)
	f := func(ctx, want string) {
		t.Helper()
		if got := summary(decideEveryWay(t, r, 0, contextOf(t, "", ctx), time.Now())); got != want {
			t.Errorf("%s: got %s, want %s", ctx, got, want)
		}
	}
	f(`{"targetingKey": "ana"}`, "on TARGETING_MATCH user")
	f(`{"user_id": "ana"}`, "on TARGETING_MATCH user")
	f(`{"targetingKey": "bob", "user_id": "ana"}`, "on TARGETING_MATCH user")
	f(`{"targetingKey": "ana", "user_id": ""}`, "on TARGETING_MATCH user")
	f(`{"targetingKey": "", "user_id": ""}`, "off ERROR TARGETING_KEY_MISSING")
	if got := decideEveryWay(t, r, 1, contextOf(t, "", `{"user_id": "ana"}`), time.Now()); got.Detail != "rule:1" {
		t.Errorf("targetingKey in a rule: %s", summary(got))
	}
	for i := range 2 {
		if got := r.Reads(i); !slices.Equal(got, []string{UserID}) {
			t.Errorf("flag %d reads %v", i, got)
		}
	}
}

func TestHashBy(t *testing.T) {
	runStages(t, []stage{
		{name: "another attribute", flags: `{"f": {"active": true, "hash_by": "company", "percentage_rollout": 50}}`, ctx: `{"company": "u1", "user_id": "u2"}`, want: summary(byBucket("u1", "f"))},
		{name: "its number is its text", flags: `{"f": {"active": true, "hash_by": "company", "percentage_rollout": 50}}`, ctx: `{"company": 12}`, want: summary(byBucket("12", "f"))},
		{name: "a known attribute", flags: `{"f": {"active": true, "hash_by": "region", "percentage_rollout": 50}}`, ctx: `{"region": "RO"}`, want: summary(byBucket("RO", "f"))},
		{name: "missing", flags: `{"f": {"active": true, "hash_by": "company", "percentage_rollout": 50}}`, ctx: `{"user_id": "u2"}`, want: "off ERROR TARGETING_KEY_MISSING"},
		{name: "a list is no key", flags: `{"f": {"active": true, "hash_by": "company", "percentage_rollout": 50}}`, ctx: `{"company": ["a"]}`, want: "off ERROR TARGETING_KEY_MISSING"},
		{name: "salt", flags: `{"f": {"active": true, "salt": "pepper", "percentage_rollout": 50}}`, ctx: `{"user_id": "u1"}`, want: summary(byBucket("u1", "pepper"))},
		{name: "no salt at all", flags: `{"f": {"active": true, "salt": "", "percentage_rollout": 50}}`, ctx: `{"user_id": "u1"}`, want: summary(byBucket("u1", ""))},
		{name: "missing key at 100 per cent", flags: `{"f": {"active": true, "percentage_rollout": 100}}`, want: "on STATIC"},
		{name: "missing key at 0 per cent", flags: `{"f": {"active": true, "percentage_rollout": 0}}`, want: "off ERROR TARGETING_KEY_MISSING"},
		{name: "missing key and weights", flags: `{"f": {"active": true, "variants": {"a": {"weight": 50}, "b": {"weight": 50}}}}`, want: "off ERROR TARGETING_KEY_MISSING"},
		{name: "missing key and one variant", flags: `{"f": {"active": true, "variants": {"a": {"weight": 100}, "b": {"weight": 0}}}}`, want: "a STATIC"},
		{name: "listed user without what variants are hashed by", flags: `{"f": {"active": true, "users": ["ana"], "hash_by": "company", "variants": {"a": {"weight": 50}, "b": {"weight": 50}}}}`, ctx: `{"user_id": "ana"}`, want: "a TARGETING_MATCH user"},
	})
	r := compileText(t, `{"f": {"active": true, "hash_by": "company", "percentage_rollout": 50}}`).With(nil)
	if d := r.EvaluateAt(0, &Context{}, time.Now()); d.Message != `flag "f" is split by "company", and the context has none` {
		t.Errorf("message %q", d.Message)
	}
}

// byBucket is the decision of a 50 per cent rollout.
func byBucket(key, salt string) *Decision {
	if Bucket(key, salt) < 50 {
		return &Decision{Variant: On, Reason: ReasonSplit, Detail: "rollout"}
	}
	return &Decision{Variant: Off, Reason: ReasonSplit, Detail: "rollout"}
}

func TestShareByState(t *testing.T) {
	p := compileText(t, `{"f": {"active": true, "percentage_rollout": 50}, "g": {"active": true}, "h": {"active": true, "depends_on": ["g"]}}`)
	count := func(r *Ruleset, flag string) (on int) {
		for k := range 10_000 {
			c := &Context{}
			c.Set(UserID, String("u"+strconv.Itoa(k)))
			if decideEveryWay(t, r, r.Index(flag), c, time.Now()).Enabled {
				on++
			}
		}
		return on
	}
	r := p.With(map[string]State{"f": {Share: share(12.5)}, "g": {Share: share(20)}})
	if on := count(r, "f"); on < 1100 || on > 1400 {
		t.Errorf("12.5 per cent by state: %d of 10000", on)
	}
	if g, h := count(r, "g"), count(r, "h"); g != h || g < 1800 || g > 2200 {
		t.Errorf("20 per cent by state of a flag without a percentage: %d, its dependent %d", g, h)
	}
	if got := r.Share(r.Index("f")).Percent(); got != 12.5 {
		t.Errorf("share %v", got)
	}
	if !r.Splits(r.Index("g")) || p.With(nil).Splits(r.Index("g")) {
		t.Error("a flag splits by its state, and only then")
	}
	// What a decision reads changes with the state, for those that depend on it too.
	for _, name := range []string{"g", "h"} {
		if got := r.Reads(r.Index(name)); !slices.Equal(got, []string{UserID}) {
			t.Errorf("%s reads %v", name, got)
		}
		if got := p.With(nil).Reads(r.Index(name)); len(got) != 0 {
			t.Errorf("%s reads %v without state", name, got)
		}
	}
	if on := count(p.With(map[string]State{"f": {Share: share(0)}}), "f"); on != 0 {
		t.Errorf("0 per cent by state: %d", on)
	}
}

// TestStateIsCopied: a ruleset does not change when its maker goes on changing
// the map.
func TestStateIsCopied(t *testing.T) {
	states := map[string]State{"f": {Tripped: "errors"}}
	r := compileText(t, `{"f": {"active": true}}`).With(states)
	states["f"] = State{}
	if got := r.State(0).Tripped; got != "errors" {
		t.Errorf("tripped %q", got)
	}
}

func TestDependencies(t *testing.T) {
	const flags = `{
		"f": {"active": true, "depends_on": {"colour": "blue", "base": true}},
		"colour": {"active": true, "variants": {"blue": {"weight": 50}, "red": {"weight": 50}}, "rules": [{"when": "wants == 'blue'", "serve": "blue"}, {"when": "wants == 'red'", "serve": "red"}, {"when": "wants == 'off'", "serve": "off"}]},
		"base": {"active": true, "environments": ["production", "staging"]}
	}`
	runStages(t, []stage{
		{name: "the variant asked for", flags: flags, ctx: `{"wants": "blue"}`, want: "on STATIC"},
		{name: "another variant", flags: flags, ctx: `{"wants": "red"}`, want: "off DISABLED dependency:colour"},
		{name: "off", flags: flags, ctx: `{"wants": "off"}`, want: "off DISABLED dependency:colour"},
		{name: "the environment of the dependency", flags: flags, ctx: `{"wants": "blue"}`, env: "test", want: "off DISABLED dependency:base"},
		{name: "the first that is off is told", flags: flags, ctx: `{"wants": "red"}`, env: "test", want: "off DISABLED dependency:colour"},
		{name: "tripped", flags: flags, ctx: `{"wants": "blue"}`, state: map[string]State{"base": {Tripped: "errors"}}, want: "off DISABLED dependency:base"},
		{name: "a chain", flags: chain(30, true), want: "on STATIC"},
		{name: "a chain with its end off", flags: chain(30, false), want: "off DISABLED dependency:c01"},
		{name: "an error of the dependency", flags: `{"f": {"active": true, "depends_on": ["g"]}, "g": {"active": true, "percentage_rollout": 50}}`, want: "off DISABLED dependency:g"},
	})
}

// chain is f → c01 → c02 → … → cN.
func chain(n int, active bool) string {
	var b strings.Builder
	b.WriteString(`{"f": {"active": true, "depends_on": ["c01"]}`)
	for i := 1; i <= n; i++ {
		if i < n {
			fmt.Fprintf(&b, `, "c%02d": {"active": true, "depends_on": ["c%02d"]}`, i, i+1)
		} else {
			fmt.Fprintf(&b, `, "c%02d": {"active": %t}`, i, active)
		}
	}
	return b.String() + "}"
}

func TestFallbackFor(t *testing.T) {
	const flags = `{"f": {"active": true, "fallback_for": "recommender", "regions": ["RO"]}, "recommender": {"active": true}}`
	tripped := map[string]State{"recommender": {Tripped: "errors"}}
	runStages(t, []stage{
		{name: "the other works", flags: flags, ctx: `{"region": "RO"}`, want: "off DISABLED fallback_for:recommender"},
		{name: "the other tripped", flags: flags, ctx: `{"region": "RO"}`, state: tripped, want: "on STATIC"},
		{name: "targeting stays in force", flags: flags, ctx: `{"region": "US"}`, state: tripped, want: "off DEFAULT region"},
		{name: "the other was switched off by hand", flags: flags, ctx: `{"region": "RO"}`, state: map[string]State{"recommender": {Override: Disabled}}, want: "off DISABLED fallback_for:recommender"},
		{name: "listed users wait too", flags: `{"f": {"active": true, "fallback_for": "g", "users": ["ana"]}, "g": {"active": true}}`, ctx: `{"user_id": "ana"}`, want: "off DISABLED fallback_for:g"},
	})
}

func TestInForce(t *testing.T) {
	f := func(flags, env string, state map[string]State, want bool) {
		t.Helper()
		r := compileText(t, flags).With(state)
		if got := r.InForce(r.Index("f"), env, at(t, "")); got != want {
			t.Errorf("%s in %q with %v: %t, want %t", flags, env, state, got, want)
		}
	}
	f(`{"f": {"active": true}}`, "", nil, true)
	f(`{"f": {"active": false}}`, "", nil, false)
	f(`{"f": {"active": true}}`, "", map[string]State{"f": {Tripped: "errors"}}, false)
	f(`{"f": {"active": true, "environments": ["a"]}}`, "a", nil, true)
	f(`{"f": {"active": true, "environments": ["a"]}}`, "b", nil, false)
	f(`{"f": {"active": true, "activation_date": "2030-01-01"}}`, "", nil, false)
	f(`{"f": {"active": true, "deactivation_date": "2020-01-01"}}`, "", nil, false)
	f(`{"f": {"active": true, "percentage_rollout": 0}}`, "", nil, false)
	f(`{"f": {"active": true, "percentage_rollout": 0, "users": ["ana"]}}`, "", nil, true)
	f(`{"f": {"active": true, "fallback_for": "g"}, "g": {"active": true}}`, "", nil, false)
}

func TestValues(t *testing.T) {
	r := compileText(t, `{
		"plain": {"active": true, "regions": ["RO"]},
		"valued": {"active": true, "regions": ["RO"], "variants": {"on": {"value": {"colour": "blue", "n": 1.50}}, "off": {"value": null}}},
		"half": {"active": true, "regions": ["RO"], "variants": {"big": {"weight": 100, "value": [1, 2]}}}
	}`).With(nil)
	f := func(flag, region, want string) {
		t.Helper()
		c := contextOf(t, "", `{"region": "`+region+`"}`)
		if got := string(r.Evaluate(flag, c, time.Now()).Value); got != want {
			t.Errorf("%s in %s: value %s, want %s", flag, region, got, want)
		}
	}
	f("plain", "RO", "true")
	f("plain", "US", "false")
	f("valued", "RO", `{"colour":"blue","n":1.50}`)
	f("valued", "US", "null")
	f("half", "RO", "[1,2]")
	f("half", "US", "")
	if got := r.Variants(r.Index("half")); !slices.Equal(got, []string{"big", "off"}) {
		t.Errorf("variants %v", got)
	}
}

func TestExplainTellsThePath(t *testing.T) {
	r := compileText(t, `{
		"f": {"active": true, "activation_date": "2026-01-01", "environments": ["production"], "depends_on": ["base"], "users": ["ana"], "rules": [{"name": "staff", "when": "staff && region == 'RO'"}], "regions": ["RO"], "beta_program": true, "percentage_rollout": 100, "exclusive": "one", "variants": {"a": {"weight": 50}, "b": {"weight": 50}}},
		"g": {"active": true, "exclusive": "one"},
		"base": {"active": true}
	}`).With(nil)
	var e Evaluation
	e.Reset(r, contextOf(t, "production", `{"user_id": "bob", "region": "RO", "beta_program": true}`), at(t, ""))
	_, steps := e.Explain(r.Index("f"))
	checks := make([]string, len(steps))
	for i, s := range steps {
		checks[i] = s.Check
		if s.Info == "" {
			t.Errorf("%s: says nothing", s.Check)
		}
	}
	want := []string{"active", "environment", "dependency:base", "user", "rule:staff", "region", "beta_program", "variant", "exclusive"}
	if !slices.Equal(checks, want) {
		t.Errorf("steps\n%v, want\n%v", checks, want)
	}
	if got := steps[4].Info; !strings.Contains(got, "staff && region == 'RO': no such attribute") {
		t.Errorf("a rule that misses an attribute: %s", got)
	}
}

func TestEvaluationIsReused(t *testing.T) {
	small := compileText(t, `{"a": {"active": true}}`).With(nil)
	big := mustRules(t, manyFlags(40))
	grouped := compileText(t, `{"a": {"active": true, "exclusive": "x"}, "b": {"active": true, "exclusive": "x"}, "c": {"active": true, "exclusive": "y"}}`).With(nil)
	var e Evaluation
	for round := range 3 {
		for _, r := range []*Ruleset{big, small, grouped, big} {
			c := &Context{}
			fill(c)
			c.Set(UserID, String("u"+strconv.Itoa(round)))
			e.Reset(r, c, time.Now())
			for i := range r.Len() {
				if got, want := e.Decide(i), r.EvaluateAt(i, c, time.Now()); !sameDecision(got, want) {
					t.Fatalf("round %d flag %d: %s, want %s", round, i, summary(got), summary(want))
				}
			}
			if len(e.All()) != r.Len() || e.Ruleset() != r || e.Context() != c {
				t.Fatal("not reset")
			}
		}
	}
	none := compileText(t, `{}`).With(nil)
	e.Reset(none, &Context{}, time.Now())
	if len(e.All()) != 0 {
		t.Error("decisions of no flags")
	}
}
