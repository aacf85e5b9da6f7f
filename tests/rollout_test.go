package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// climbing is what the API tells of a rollout.
type climbing struct {
	Status     string
	Percentage float64
	Rollout    struct {
		Step              int
		Steps             []float64
		Share             float64
		Phase, Reason, By string
		Next              *float64
		Requests          int64
		Baked, Bake       string
		MinRequests       int64 `json:"min_requests"`
	}
	State struct{ Tripped bool }
}

func climbingOf(t *testing.T, admin string) (c climbing) {
	t.Helper()
	r := ask(t, http.MethodGet, admin+"/feature_flags/flags/new_ui", "")
	if r.status == http.StatusNotFound {
		return c
	}
	if err := json.Unmarshal([]byte(r.body), &c); err != nil || r.status != http.StatusOK {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	return c
}

// people are a thousand users who ask all the time, and what they get.
type people struct {
	t      *testing.T
	url    string
	mu     sync.Mutex
	has    map[string]time.Time // by user: since when the feature is known to be there
	lost   int                  // users who had the feature and lost it
	failed int                  // requests that failed
	stop   func()
}

// crowdOf has people ask at a rate a second until the test ends, or stop is called.
func crowdOf(t *testing.T, url string, rate float64) *people {
	ctx, cancel := context.WithCancel(context.Background())
	p := &people{t: t, url: url, has: map[string]time.Time{}}
	var asking sync.WaitGroup
	asking.Go(func() {
		for slots := make(chan struct{}, 50); ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(1e9 / rate)):
			}
			slots <- struct{}{}
			asking.Go(func() {
				defer func() { <-slots }()
				p.ask(fmt.Sprintf("u%d", rand.IntN(1000)))
			})
		}
	})
	p.stop = func() {
		cancel()
		asking.Wait()
	}
	t.Cleanup(p.stop)
	return p
}

func (p *people) ask(user string) {
	begun := time.Now()
	r, err := try(p.url+"/", "X-User-ID", user)
	if err != nil {
		return // while it is killed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	way, _, _ := strings.Cut(r.body, "\n")
	if r.status != http.StatusOK {
		p.failed++
		return
	}
	since, had := p.has[user]
	switch {
	case way == "new" && !had:
		p.has[user] = time.Now()
	case way == "old" && had && begun.After(since): // one that began before may have been decided before
		p.lost++
		delete(p.has, user)
	}
}

func (p *people) losses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// A rollout of five steps: whoever has the feature keeps it, through kill -9 at each
// step.
func TestRolloutIsKilledAtEveryStep(t *testing.T) {
	p := canaryProcess(t, `{"new_ui": {"active": true, "guard": {"latency": {"warm_up": "0s"}}, "rollout": {"steps": [5, 20, 50, 80, 100], "bake": "2s", "min_requests": 5}}}`)
	p.run()
	crowd := crowdOf(t, p.site, 200)
	steps := []float64{5, 20, 50, 80, 100}
	for i, share := range steps {
		eventually(t, 30*time.Second, fmt.Sprintf("step %d is not reached", i+1), func() bool {
			c := climbingOf(t, "http://"+p.admin)
			if c.Percentage > share {
				t.Fatalf("at %g %% already, want %g", c.Percentage, share)
			}
			return c.Percentage == share
		})
		p.kill()
		p.run()
		c := climbingOf(t, "http://"+p.admin)
		if c.Percentage < share || i < len(steps)-1 && c.Percentage > steps[i+1] {
			t.Fatalf("after kill -9 at step %d: %g %%, want %g", i+1, c.Percentage, share)
		}
	}
	c := climbingOf(t, "http://"+p.admin)
	if c.Rollout.Phase != "complete" || c.Rollout.Step != 5 || c.Status != "on" {
		t.Errorf("%+v, want it complete and on", c)
	}
	crowd.stop()
	if n := crowd.losses(); n > 0 {
		t.Errorf("%d users lost the feature while the percentage rose", n)
	}
	if out, _, status := p.command("", "show", "new_ui", "--address", p.admin); status != 0 || !strings.Contains(out, "rollout: step 5 of 5 at 100 %, complete") {
		t.Errorf("show: %d %q", status, out)
	}
}

// sickSite is a site whose canary fails while it is told to.
func sickSite(t *testing.T, features string) (c *instance, sick *atomic.Bool) {
	sick = new(atomic.Bool)
	words := map[string]string{
		"NEW": host(upstream(t, "new", func(w http.ResponseWriter, r *http.Request) bool {
			if sick.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
			return sick.Load()
		})),
		"OLD": host(upstream(t, "old", nil)),
	}
	return start(t, global+"http://:0 {\n\tbind 127.0.0.1\n"+twoWays+"}\n", features, words), sick
}

// A canary that turns bad on the way: the rollout ends, and begins anew when
// somebody has reset it.
func TestRolloutOfASickCanary(t *testing.T) {
	c, sick := sickSite(t, `{"new_ui": {"active": true, "guard": {"latency": {"warm_up": "0s"}}, "rollout": {"steps": [5, 20, 50, 80, 100], "bake": "1s", "min_requests": 5}}}`)
	crowd := crowdOf(t, c.url(0), 200)
	eventually(t, 30*time.Second, "step 2 is not reached", func() bool { return climbingOf(t, c.admin).Rollout.Step == 2 })
	sick.Store(true)
	eventually(t, 30*time.Second, "it does not trip", func() bool { return climbingOf(t, c.admin).State.Tripped })
	at := climbingOf(t, c.admin)
	if at.Percentage != 0 || at.Rollout.Phase != "stopped" || !strings.HasPrefix(at.Rollout.Reason, "tripped:") || at.Rollout.Step > 3 {
		t.Errorf("tripped: %+v, want 0 %%", at)
	}
	time.Sleep(3 * time.Second)
	if now := climbingOf(t, c.admin); now.Percentage != 0 || now.Rollout.Step != at.Rollout.Step {
		t.Errorf("three seconds later: %+v", now)
	}
	if r := c.get("/", "X-User-ID", "u1"); !strings.HasPrefix(r.body, "old") {
		t.Errorf("%q, want old", r.body)
	}
	sick.Store(false)
	c.api("POST", "flags/new_ui/reset", `{"reason": "mended"}`, 200)
	if at := climbingOf(t, c.admin); at.Rollout.Step != 1 || at.Percentage != 5 {
		t.Errorf("after the reset: %+v, want the first step", at)
	}
	eventually(t, 40*time.Second, "it does not come to its end", func() bool { return climbingOf(t, c.admin).Rollout.Phase == "complete" })
	crowd.stop()
	if crowd.failed == 0 || crowd.failed > 200 {
		t.Errorf("%d requests failed", crowd.failed)
	}
}

// Without traffic nothing is known, and nothing climbs; a minute of it is enough.
func TestRolloutWithoutTraffic(t *testing.T) {
	c, _ := sickSite(t, `{"new_ui": {"active": true, "guard": {"latency": {"warm_up": "0s"}}, "rollout": {"steps": [5, 100], "bake": "500ms", "min_requests": 5}}}`)
	time.Sleep(4 * time.Second)
	at := climbingOf(t, c.admin)
	if at.Rollout.Step != 1 || at.Percentage != 5 || at.Rollout.Reason == "" {
		t.Fatalf("%+v, want it held at the first step, and why", at)
	}
	t.Logf("%s: %s", at.Rollout.Phase, at.Rollout.Reason)
	crowdOf(t, c.url(0), 200)
	eventually(t, 20*time.Second, "it does not go on", func() bool { return climbingOf(t, c.admin).Rollout.Phase == "complete" })
}

// What a person orders, by API and command line, over restarts.
func TestRolloutIsSteered(t *testing.T) {
	p := canaryProcess(t, `{
		"new_ui": {"active": true, "guard": false, "rollout": {"steps": [1, 5, 25], "bake": "10m", "approve": [5]}},
		"plain": {"active": true, "percentage_rollout": 10}
	}`)
	p.run()
	at := func(flag string, percentage float64, phase string) {
		t.Helper()
		var c climbing
		r := fetch(t, "http://"+p.admin+"/feature_flags/flags/"+flag)
		if err := json.Unmarshal([]byte(r.body), &c); err != nil {
			t.Fatal(err)
		}
		if c.Percentage != percentage || c.Rollout.Phase != phase {
			t.Fatalf("%s: %+v, want %g %% and %q", flag, c, percentage, phase)
		}
	}
	orders := []struct {
		flag, order string
		percentage  float64
		phase, says string // what the command prints; of a refusal on standard error
		status      int
	}{
		{"new_ui", "resume", 1, "baking", "the rollout is not stopped", 1},
		{"new_ui", "pause", 1, "paused", "rollout: step 1 of 3 at 1 %, paused by ann: lunch; next 5 %", 0},
		{"new_ui", "pause", 1, "paused", "the rollout is paused already", 1},
		{"new_ui", "promote", 5, "baking", "step 2 of 3 at 5 %", 0},
		{"new_ui", "12.5", 12.5, "set", "at 12.5 %, set by ann: lunch", 0},
		{"new_ui", "120", 12.5, "set", "want a number from 0 to 100, got 120", 1},
		{"new_ui", "1.0001", 12.5, "set", "at most three decimals", 1},
		{"new_ui", "resume", 12.5, "baking", "step 2 of 3 at 12.5 %", 0},
		{"new_ui", "promote", 25, "complete", "step 3 of 3 at 25 %, complete", 0},
		{"new_ui", "promote", 25, "complete", "at its last step", 1},
		{"new_ui", "abort", 0, "aborted", "aborted by ann: lunch", 0},
		{"new_ui", "promote", 0, "aborted", "resume begins it anew", 1},
		{"new_ui", "resume", 1, "baking", "step 1 of 3 at 1 %", 0},
		{"new_ui", "explode", 1, "baking", `want pause, resume, promote or abort, got "explode"`, 1},
		{"plain", "pause", 10, "", "its definition has no rollout", 1},
		{"plain", "40%", 40, "set", "percentage: set at 40 % by ann: lunch", 0},
		{"plain", "resume", 10, "", "plain: split", 0},
		{"plain", "40", 40, "set", "percentage: set at 40 %", 0},
		{"none", "40", 0, "", `flag "none" is not defined`, 1},
	}
	for _, o := range orders {
		out, errs, status := p.command("", "rollout", o.flag, o.order, "--by", "ann", "--reason", "lunch", "--address", p.admin)
		if status != o.status || !strings.Contains(out+errs, o.says) {
			t.Fatalf("%s %s: %d\n%s%s\nwant %d and %q", o.flag, o.order, status, out, errs, o.status, o.says)
		}
		if o.flag == "none" {
			continue
		}
		at(o.flag, o.percentage, o.phase)
		if o.status == 0 {
			p.kill()
			p.run()
			at(o.flag, o.percentage, o.phase)
		}
	}
	if out, _, _ := p.command("", "audit", "--address", p.admin); !strings.Contains(out, "from 1 % to 5 %, step 2 of 3: lunch") || !strings.Contains(out, "rollout_set") || !strings.Contains(out, "from 5 % to 12.5 %, step 2 of 3: lunch") || !strings.Contains(out, "ann") {
		t.Errorf("audit:\n%s", out)
	}
	for _, body := range []string{`{}`, `{"action": "pause", "percentage": 5}`, `{"action": "explode"}`, `{"percentage": "x"}`, `{"percentage": -1}`, `{"speed": 1}`, `[]`} {
		req, _ := http.NewRequest("POST", "http://"+p.admin+"/feature_flags/flags/new_ui/rollout", strings.NewReader(body))
		req.Close = true // as kill leaves nothing to go on by
		if r := do(t, client, req); r.status != http.StatusBadRequest || !strings.Contains(r.body, `"error"`) {
			t.Errorf("%s: %d %s, want 400", body, r.status, r.body)
		}
	}
}

// Editing the definition: a rollout goes on where its steps are the same, and
// begins anew where they are not.
func TestRolloutIsEdited(t *testing.T) {
	c, _ := sickSite(t, `{"new_ui": {"active": true, "rollout": {"steps": [1, 5, 25], "bake": "10m"}}}`)
	edited := func(text string, percentage float64, step int) {
		t.Helper()
		c.write("features.json", text)
		eventually(t, 3*time.Second, text, func() bool {
			at := climbingOf(t, c.admin)
			return at.Percentage == percentage && at.Rollout.Step == step
		})
		time.Sleep(300 * time.Millisecond)
		if at := climbingOf(t, c.admin); at.Percentage != percentage || at.Rollout.Step != step {
			t.Errorf("%s: %+v, want %g %% and step %d", text, at, percentage, step)
		}
	}
	c.api("POST", "flags/new_ui/rollout", `{"action": "promote"}`, 200)
	edited(`{"new_ui": {"active": true, "users": ["bob"], "rollout": {"steps": [1, 5, 25], "bake": "20m", "min_requests": 7}}}`, 5, 2)
	if at := climbingOf(t, c.admin); at.Rollout.Bake != "20m" || at.Rollout.MinRequests != 7 {
		t.Errorf("%+v, want the new bake", at.Rollout)
	}
	edited(`{"new_ui": {"active": true, "rollout": {"steps": [2, 5, 25], "bake": "20m"}}}`, 2, 1)
	edited(`{"new_ui": {"active": true, "percentage_rollout": 30}}`, 30, 0)
	edited(`{"new_ui": {"active": true, "rollout": {"steps": [90, 10, 0], "bake": "20m"}}}`, 90, 1)
	c.api("POST", "flags/new_ui/rollout", `{"action": "promote"}`, 200)
	edited(`{"new_ui": {"active": true, "rollout": {"steps": [90, 10, 0], "bake": "0s", "min_requests": 0}, "guard": false}}`, 0, 3)
	edited(`{"new_ui": {"active": true, "rollout": {"over": "1h"}}}`, 1, 1)
	c.write("features.json", `{}`)
	eventually(t, 3*time.Second, "the flag is still there", func() bool { return c.call("GET", "/feature_flags/flags/new_ui", "").status == 404 })
	edited(`{"new_ui": {"active": true, "rollout": {"over": "1h"}}}`, 1, 1)
}

// A flag that is not in force does not climb; a step that wants a person waits and
// says so.
func TestRolloutWaits(t *testing.T) {
	c, _ := sickSite(t, `{"new_ui": {"active": true, "guard": {"latency": {"warm_up": "0s"}}, "rollout": {"steps": [5, 50, 100], "bake": "0s", "min_requests": 1, "approve": [5]}}}`)
	time.Sleep(500 * time.Millisecond) // until its beginning is told
	events := c.stream("")
	c.api("POST", "flags/new_ui/disable", "", 200)
	next(t, events, "overridden")
	crowdOf(t, c.url(0), 200)
	time.Sleep(3 * time.Second)
	if at := climbingOf(t, c.admin); at.Rollout.Step != 1 || at.Rollout.Phase != "stopped" || at.Rollout.Reason != "override" || at.Percentage != 0 {
		t.Errorf("%+v, want it stopped", at)
	}
	c.api("POST", "flags/new_ui/reset", "", 200)
	next(t, events, "reset")
	held := next(t, events, "held")
	if held.By != "rollout" || !strings.Contains(held.Reason, "caddy feature-flags rollout new_ui promote") {
		t.Errorf("%+v", held)
	}
	if at := climbingOf(t, c.admin); at.Rollout.Phase != "waiting" || at.Percentage != 5 {
		t.Errorf("%+v, want it to wait", at)
	}
	c.api("POST", "flags/new_ui/rollout", `{"action": "promote", "by": "ann"}`, 200)
	if h := next(t, events, "overridden"); h.By != "ann" {
		t.Errorf("%+v", h)
	}
	advanced := next(t, events, "advanced")
	if advanced.By != "rollout" || advanced.Data["percentage"] != 100.0 || !strings.Contains(advanced.Reason, "the rollout is complete") {
		t.Errorf("%+v", advanced)
	}
}
