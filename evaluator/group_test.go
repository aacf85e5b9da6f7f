package evaluator

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestExclusive(t *testing.T) {
	r := compileText(t, `{
		"a": {"active": true, "exclusive": "banner", "users": ["ana", "both"], "percentage_rollout": 100},
		"b": {"active": true, "exclusive": "banner", "users": ["both"], "percentage_rollout": 100},
		"c": {"active": true, "exclusive": "banner", "percentage_rollout": 50},
		"d": {"active": true, "exclusive": "banner", "regions": ["RO"]},
		"free": {"active": true, "depends_on": ["c"]}
	}`).With(nil)
	const users = 30_000
	on := map[string]int{}
	var e Evaluation
	for k := range users {
		c := &Context{}
		c.Set(UserID, String("u"+strconv.Itoa(k)))
		e.Reset(r, c, time.Now())
		winner := ""
		for i, d := range e.All() {
			if k < 2000 {
				decideEveryWay(t, r, i, c, time.Now())
			}
			if d.Flag == "free" {
				if d.Enabled != (winner == "c") {
					t.Fatalf("user %d: free is %s, the winner %s", k, summary(d), winner)
				}
				continue
			}
			if !d.Enabled {
				continue
			}
			if winner != "" {
				t.Fatalf("user %d has %s and %s", k, winner, d.Flag)
			}
			winner = d.Flag
			on[winner]++
		}
		for _, d := range e.All()[:3] {
			if d.Flag != winner && d.Reason == ReasonDefault && d.Detail != "exclusive:"+winner {
				t.Fatalf("user %d: %s is %s, the winner %s", k, d.Flag, summary(d), winner)
			}
		}
	}
	// Half of the users have a and b to choose from, half a, b and c:
	// a and b get 1/2·1/2 + 1/2·1/3 = 5/12 each, c 1/6.
	within(t, "a", on["a"], users, 5.0/12)
	within(t, "b", on["b"], users, 5.0/12)
	within(t, "c", on["c"], users, 1.0/6)

	check := func(name, ctx, flag, want string) {
		t.Helper()
		if got := summary(decideEveryWay(t, r, r.Index(flag), contextOf(t, "", ctx), time.Now())); got != want {
			t.Errorf("%s: %s is %s, want %s", name, flag, got, want)
		}
	}
	check("a listed user goes first", `{"user_id": "ana", "region": "RO"}`, "a", "on TARGETING_MATCH user")
	check("a listed user goes first", `{"user_id": "ana", "region": "RO"}`, "b", "off DEFAULT exclusive:a")
	check("a listed user goes first", `{"user_id": "ana", "region": "RO"}`, "d", "off DEFAULT exclusive:a")
	check("a flag that is off anyway says why", `{"user_id": "ana", "region": "US"}`, "d", "off DEFAULT region")
	listed := 0
	for _, flag := range []string{"a", "b"} {
		if decideEveryWay(t, r, r.Index(flag), contextOf(t, "", `{"user_id": "both"}`), time.Now()).Enabled {
			listed++
		}
	}
	if listed != 1 {
		t.Errorf("a user that two flags list has %d of them", listed)
	}
}

// TestExclusiveIsStable: a user moves only when a flag of the group begins or
// ceases to be on for him, and a tripped one frees its users.
func TestExclusiveIsStable(t *testing.T) {
	p := compileText(t, `{
		"a": {"active": true, "exclusive": "g"}, "b": {"active": true, "exclusive": "g"}, "c": {"active": true, "exclusive": "g"}
	}`)
	all, without := p.With(nil), p.With(map[string]State{"b": {Tripped: "errors"}})
	freed := map[string]int{}
	for k := range 3000 {
		c := &Context{}
		c.Set(UserID, String("u"+strconv.Itoa(k)))
		before, after := winnerOf(all, c), winnerOf(without, c)
		if before != "b" && after != before {
			t.Fatalf("user %d moved from %s to %s when b was tripped", k, before, after)
		}
		if before == "b" {
			freed[after]++
		}
	}
	within(t, "freed users on a", freed["a"], freed["a"]+freed["c"], 0.5)
}

func winnerOf(r *Ruleset, c *Context) string {
	var on []string
	for i := range r.Len() {
		if d := r.EvaluateAt(i, c, time.Now()); d.Enabled {
			on = append(on, d.Flag)
		}
	}
	return strings.Join(on, " ")
}

// TestExclusiveWithoutKey: at most one, too.
func TestExclusiveWithoutKey(t *testing.T) {
	r := compileText(t, `{"a": {"active": true, "exclusive": "g"}, "b": {"active": true, "exclusive": "g"}, "c": {"active": true, "exclusive": "g", "percentage_rollout": 50}}`).With(nil)
	if got := winnerOf(r, &Context{}); got != "a" && got != "b" {
		t.Errorf("on without a targeting key: %q", got)
	}
}

// TestExclusiveThroughDependencies: flags of a group may depend on flags
// outside, and be depended on, as long as there is no circle.
func TestExclusiveThroughDependencies(t *testing.T) {
	r := compileText(t, `{
		"a": {"active": true, "exclusive": "g", "depends_on": ["base"]},
		"b": {"active": true, "exclusive": "g", "depends_on": ["other"]},
		"base": {"active": true, "exclusive": "h"},
		"other": {"active": true, "exclusive": "h"},
		"after": {"active": true, "depends_on": ["a"]}
	}`).With(nil)
	for k := range 500 {
		c := &Context{}
		c.Set(UserID, String("u"+strconv.Itoa(k)))
		for i := range r.Len() {
			decideEveryWay(t, r, i, c, time.Now())
		}
		got := winnerOf(r, c)
		if got != "a after base" && got != "b other" {
			t.Fatalf("user %d: %q", k, got)
		}
	}
}

// TestGroupAtItsLimit: a hundred flags, one of which each user has.
func TestGroupAtItsLimit(t *testing.T) {
	var b strings.Builder
	for i := range maxExclusive {
		fmt.Fprintf(&b, `, "f%d": {"active": true, "exclusive": "g"}`, i)
	}
	r := compileText(t, "{"+b.String()[1:]+"}").With(nil)
	seen := map[string]bool{}
	for k := range 2000 {
		c := &Context{}
		c.Set(UserID, Of(k))
		var e Evaluation
		e.Reset(r, c, time.Now())
		on := 0
		for _, d := range e.All() {
			if d.Enabled {
				on++
				seen[d.Flag] = true
			}
		}
		if on != 1 {
			t.Fatalf("user %d has %d flags", k, on)
		}
	}
	if len(seen) < maxExclusive {
		t.Errorf("%d of %d flags are ever on", len(seen), maxExclusive)
	}
}

// Whoever compares a flag of a group with those whom its split leaves out must
// take people whom another flag does not have anyway.
func TestContends(t *testing.T) {
	r := compileText(t, `{
		"a": {"active": true, "exclusive": "banner", "percentage_rollout": 20},
		"b": {"active": true, "exclusive": "banner", "regions": ["RO"]},
		"c": {"active": true, "exclusive": "banner", "users": ["ana"], "percentage_rollout": 50},
		"free": {"active": true, "percentage_rollout": 50}
	}`).With(nil)
	now := time.Now()
	var e Evaluation
	for _, region := range []string{"RO", "US"} {
		const users = 60_000
		compared, canary := 0, 0
		for k := range users {
			c := &Context{}
			c.Set(UserID, String("u"+strconv.Itoa(k)))
			c.Set("region", String(region))
			e.Reset(r, c, now)
			d := e.Decide(0)
			contends := e.Contends(0)
			if d.Enabled && !contends {
				t.Fatalf("user %d has the flag and does not contend for it", k)
			}
			if d.Detail != "" && strings.HasPrefix(d.Detail, "exclusive:") && contends {
				t.Fatalf("user %d is %s and contends", k, summary(d))
			}
			if !e.Contends(3) {
				t.Fatal("of no group, and does not contend")
			}
			if d.Reason == ReasonSplit && contends {
				compared++
				if d.Enabled {
					canary++
				}
			}
		}
		// Whoever the others of the group have is missing in canary and control alike.
		within(t, "canary in "+region, canary, compared, 0.2)
		if region == "RO" {
			within(t, "compared", compared, users, 0.5*0.5+0.5/3) // b has its region, c half of it
		}
	}
	c := contextOf(t, "", `{"user_id": "ana"}`)
	e.Reset(r, c, now)
	if e.Contends(0) {
		t.Error("ana is listed by c, and contends for a")
	}
}
