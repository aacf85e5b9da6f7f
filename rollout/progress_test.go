package rollout

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

var begun = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func shares(percents ...float64) (out []evaluator.Share) {
	for _, p := range percents {
		out = append(out, evaluator.ShareOf(p))
	}
	return out
}

func plan(percents ...float64) *Plan {
	return &Plan{Steps: shares(percents...), Stay: 10 * time.Second, MinRequests: 100}
}

// pass has seconds go by, each with so many requests of the canary.
func pass(g *Progress, p *Plan, seconds int, requests int64, hold string) (advances int) {
	for range seconds {
		if g.Pass(p, Passing{Elapsed: time.Second, Requests: requests, Hold: hold}) {
			g.Advance(p, begun)
			advances++
		}
	}
	return advances
}

func at(t *testing.T, g *Progress, step int, percent float64) {
	t.Helper()
	if g.Step != step || g.Share.Percent() != percent {
		t.Fatalf("at step %d and %g %%, want %d and %g", g.Step, g.Share.Percent(), step, percent)
	}
}

func TestClimbs(t *testing.T) {
	p := plan(1, 5, 25, 50, 100)
	g := Begin(p, begun)
	at(t, &g, 0, 1)
	pass(&g, p, 9, 100, "")
	at(t, &g, 0, 1)
	pass(&g, p, 1, 100, "")
	at(t, &g, 1, 5)
	pass(&g, p, 30, 100, "")
	at(t, &g, 4, 100)
	if n := pass(&g, p, 100, 100, ""); n != 0 {
		t.Errorf("%d more steps after the last", n)
	}
}

func TestWantsRequests(t *testing.T) {
	p := plan(1, 5)
	g := Begin(p, begun)
	pass(&g, p, 99, 1, "")
	at(t, &g, 0, 1)
	pass(&g, p, 1, 1, "")
	at(t, &g, 1, 5)
}

// Where there is no canary, or nobody else, nothing can be asked of it.
func TestWantsNoRequestsOfNobody(t *testing.T) {
	p := plan(0, 100)
	g := Begin(p, begun)
	pass(&g, p, 10, 0, "")
	at(t, &g, 1, 100)
}

func TestHolds(t *testing.T) {
	p := plan(1, 5)
	g := Begin(p, begun)
	pass(&g, p, 5, 100, "")
	pass(&g, p, 1000, 100, "control fails too")
	at(t, &g, 0, 1)
	if g.Baked != 5*time.Second {
		t.Errorf("baked %s while it was held", g.Baked)
	}
	pass(&g, p, 4, 0, "")
	at(t, &g, 0, 1)
	pass(&g, p, 1, 0, "")
	at(t, &g, 1, 5)
}

// A canary that warms up bakes, and does not climb.
func TestWarmsUp(t *testing.T) {
	p := plan(1, 5)
	g := Begin(p, begun)
	for range 60 {
		if g.Pass(p, Passing{Elapsed: time.Second, Requests: 10, Hold: "warming up", Warming: true}) {
			t.Fatal("it climbs while warming up")
		}
	}
	pass(&g, p, 1, 0, "")
	at(t, &g, 1, 5)
}

func TestFalls(t *testing.T) {
	p := plan(50, 10, 0)
	g := Begin(p, begun)
	at(t, &g, 0, 50)
	pass(&g, p, 10, 100, "")
	at(t, &g, 1, 10)
	pass(&g, p, 10, 100, "")
	at(t, &g, 2, 0)
}

func TestApproval(t *testing.T) {
	p := plan(1, 5, 25)
	p.Approve = shares(5)
	g := Begin(p, begun)
	pass(&g, p, 100, 100, "")
	at(t, &g, 1, 5)
	if s := g.Status(p, "", ""); s.Phase != Waiting {
		t.Errorf("%+v, want it to wait", s)
	}
	if err := g.Do(p, Promote, "ann", "", begun); err != nil {
		t.Fatal(err)
	}
	at(t, &g, 2, 25)
}

func TestOrders(t *testing.T) {
	p := plan(1, 5, 25, 50, 100)
	do := func(g *Progress, a Action, want string) {
		t.Helper()
		before := *g
		err := g.Do(p, a, "ann", "why", begun)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Fatalf("%s: %v, want %q", a, err, want)
		}
		if err != nil && !cmp.Equal(before, *g) {
			t.Errorf("%s: %v, and changed %+v to %+v", a, err, before, *g)
		}
	}
	g := Begin(p, begun)
	do(&g, Resume, "not stopped")
	do(&g, Pause, "")
	do(&g, Pause, "paused already")
	if pass(&g, p, 1000, 100, "") > 0 {
		t.Error("it climbs while paused")
	}
	do(&g, Resume, "")
	pass(&g, p, 10, 100, "")
	at(t, &g, 1, 5)

	do(&g, Pause, "")
	do(&g, Promote, "")
	at(t, &g, 2, 25)
	if g.Order != "" {
		t.Error("still paused after promote")
	}
	do(&g, Abort, "")
	at(t, &g, -1, 0)
	do(&g, Abort, "aborted already")
	do(&g, Promote, "resume begins it anew")
	do(&g, Pause, "aborted already")
	if pass(&g, p, 1000, 100, "") > 0 {
		t.Error("it climbs though aborted")
	}
	do(&g, Resume, "")
	at(t, &g, 0, 1)

	for range 4 {
		do(&g, Promote, "")
	}
	at(t, &g, 4, 100)
	do(&g, Promote, "last step")
	do(&g, Pause, "complete")
	do(&g, Abort, "")
	at(t, &g, -1, 0)
	do(&g, "explode", "want pause, resume, promote or abort")
}

func TestSetShare(t *testing.T) {
	for _, c := range []struct {
		steps []float64
		set   float64
		step  int // that it resumes behind
		next  float64
		last  bool
	}{
		{steps: []float64{1, 5, 25}, set: 12.5, step: 1, next: 25},
		{steps: []float64{1, 5, 25}, set: 0.5, step: -1, next: 1},
		{steps: []float64{1, 5, 25}, set: 5, step: 1, next: 25},
		{steps: []float64{1, 5, 25}, set: 100, step: 2, last: true},
		{steps: []float64{50, 10, 0}, set: 30, step: 0, next: 10},
		{steps: []float64{50, 10, 0}, set: 80, step: -1, next: 50},
		{steps: []float64{50, 10, 0}, set: 0, step: 2, last: true},
	} {
		p := plan(c.steps...)
		g := Begin(p, begun)
		g.SetShare(p, evaluator.ShareOf(c.set), "ann", "why", begun)
		if pass(&g, p, 1000, 1000, "") > 0 || g.Share.Percent() != c.set {
			t.Errorf("%v: at %g %%, set to %g", c.steps, g.Share.Percent(), c.set)
		}
		if err := g.Do(p, Resume, "", "", begun); err != nil {
			t.Fatal(err)
		}
		at(t, &g, c.step, c.set)
		pass(&g, p, 10, 100, "")
		if !c.last {
			at(t, &g, c.step+1, c.next)
		} else {
			at(t, &g, c.step, c.set)
		}
		g.SetShare(p, evaluator.ShareOf(c.set), "", "", begun)
		err := g.Do(p, Promote, "", "", begun)
		if (err != nil) != c.last || err == nil && g.Share.Percent() != c.next {
			t.Errorf("%v: promote from %g: %v, at %g", c.steps, c.set, err, g.Share.Percent())
		}
	}
	// Without a plan only a percentage can be set, and given up.
	g := Progress{Step: -1}
	g.SetShare(nil, evaluator.ShareOf(7), "", "", begun)
	if s := g.Status(nil, "", ""); s.Phase != "set" || s.Share != 7 || !g.Follows(nil) || g.Follows(plan(1)) {
		t.Errorf("%+v", s)
	}
	for _, a := range []Action{Pause, Promote, Abort} {
		if err := g.Do(nil, a, "", "", begun); err == nil {
			t.Errorf("%s of no rollout", a)
		}
	}
	if err := g.Do(nil, Resume, "", "", begun); err != nil || g.Order != "" {
		t.Errorf("%v, %+v", err, g)
	}
}

func TestAbortGoesBack(t *testing.T) {
	f := func(text string, want float64) {
		t.Helper()
		doc, err := evaluator.Decode("t", []byte(`{"f": {"active": true, `+text+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		p := PlanOf(doc.Flags[0])
		g := Begin(p, begun)
		if err := g.Do(p, Abort, "", "", begun); err != nil || g.Share.Percent() != want {
			t.Errorf("%s: %v, at %g, want %g", text, err, g.Share.Percent(), want)
		}
	}
	f(`"rollout": {"steps": [1, 100]}`, 0)
	f(`"percentage_rollout": 0.5, "rollout": {"steps": [1, 100]}`, 0.5)
	f(`"rollout": {"steps": [50, 0]}`, 100)
	f(`"percentage_rollout": 60, "rollout": {"steps": [50, 0]}`, 60)
	f(`"rollout": {"over": "6h"}`, 0)
	f(`"rollout": {"steps": [0], "over": "6h"}`, 100)
	if PlanOf(nil) != nil || PlanOf(&evaluator.Flag{}) != nil {
		t.Error("a plan of nothing")
	}
}

// What is kept comes back as it was.
func TestProgressIsKept(t *testing.T) {
	p := plan(1, 5, 25)
	g := Begin(p, begun)
	pass(&g, p, 13, 50, "")
	_ = g.Do(p, Pause, "ann", "lunch", begun)
	text, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var again Progress
	if err := json.Unmarshal(text, &again); err != nil || !cmp.Equal(again, g) || !again.Follows(p) || again.Follows(plan(1, 5)) {
		t.Errorf("%s came back as %+v, %v", text, again, err)
	}
}

// Whatever happens, a share that climbs never falls but by a person's word, and
// never passes its last step.
func TestNeverFallsByItself(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		p := plan(1, 5, 25, 50, 100)
		g := Begin(p, begun)
		for range 500 {
			before := g.Share
			hold := []string{"", "", "control fails too"}[random.IntN(3)]
			now := Passing{Elapsed: time.Duration(random.IntN(int(5 * time.Second))), Requests: int64(random.IntN(50)), Hold: hold}
			if random.IntN(20) == 0 {
				_ = g.Do(p, []Action{Pause, Resume, Promote}[random.IntN(3)], "", "", begun)
			}
			if g.Pass(p, now) {
				if now.Hold != "" {
					t.Fatal("it climbs while held")
				}
				g.Advance(p, begun)
			}
			if g.Share < before || g.Share > evaluator.WholeShare || g.Step >= len(p.Steps) {
				t.Fatalf("seed %d: from %d to %d at step %d", seed, before, g.Share, g.Step)
			}
		}
	}
}
