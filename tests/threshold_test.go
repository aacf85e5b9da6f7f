package tests

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// thresholdSite routes alice to an upstream that does as the query says.
const thresholdSite = site + userContext + `
	feature_route new_ui {
		on {
			reverse_proxy NEW
		}
		off {
			reverse_proxy OLD
		}
	}
}
`

func thresholds(t *testing.T, fields string, handle func(http.ResponseWriter, *http.Request) bool) *instance {
	t.Helper()
	return serve(t, thresholdSite, fmt.Sprintf(`{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, %s}}`, fields),
		map[string]string{"NEW": host(upstream(t, "new", handle)), "OLD": host(upstream(t, "old", handle))})
}

// failsIfAsked answers 500 to ?fail.
func failsIfAsked(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Query().Has("fail") {
		w.WriteHeader(500)
		return true
	}
	return false
}

// The limit's errors are borne, one more trips, and the next request is off.
func TestErrorThresholdExactly(t *testing.T) {
	for _, limit := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c := thresholds(t, fmt.Sprintf(`"error_threshold": %d`, limit), failsIfAsked)
			for range 5 { // neither good ones nor the control's count
				c.get("/", "X-User-ID", "alice")
				c.get("/?fail", "X-User-ID", "bob")
			}
			for n := range limit + 1 {
				if status := c.guard("new_ui").Status; status == "tripped" {
					t.Fatalf("tripped after %d errors, want more than %d", n, limit)
				}
				if r := c.get("/?fail", "X-User-ID", "alice"); r.status != 500 {
					t.Fatalf("error %d: status %d", n+1, r.status)
				}
			}
			if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old\n") || !strings.Contains(r.body, "X-Feature-New-Ui: off") {
				t.Errorf("the next request: %q, want the old way", r.body)
			}
			g := c.guard("new_ui")
			if g.Status != "tripped" || len(g.State.Trips) != 1 {
				t.Fatalf("%s, %+v", g.Status, g.State)
			}
			e := g.State.Trips[0].Evidence
			if e.Test != "errors" || e.Limit != float64(limit) || e.Found != float64(limit+1) || e.Canary.Requests != limit+6 || len(e.Last) != limit+1 || e.Last[0].Status != 500 || e.Last[0].ID == "" {
				t.Errorf("evidence %+v", e)
			}
			if text := fmt.Sprint(c.api("GET", "flags/new_ui", "", 200)["state"]); strings.Contains(text, "alice") {
				t.Errorf("the evidence names a person: %s", text)
			}
			if v := c.metric(`caddy_feature_flags_tripped{flag="new_ui"}`); v != "1" {
				t.Errorf("metric tripped is %q", v)
			}
			if r := c.get("/", "X-User-ID", "alice"); r.status != 200 {
				t.Errorf("status %d", r.status)
			}
			told := c.entries(10 + limit + 3)
			if last := told[len(told)-1].Flags["new_ui"]; last.Reason != "DISABLED" || last.Detail != "tripped:errors" || last.Variant != "off" {
				t.Errorf("access log %+v, want DISABLED tripped:errors", last)
			}
		})
	}
}

// Many at once: one trip, whoever is first.
func TestErrorThresholdAtOnce(t *testing.T) {
	c := thresholds(t, `"error_threshold": 10`, failsIfAsked)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				_, _ = try(c.url(0)+"/?fail", "X-User-ID", "alice")
			}
		})
	}
	all.Wait()
	g := c.guard("new_ui")
	if g.Status != "tripped" || len(g.State.Trips) != 1 || g.State.Trips[0].Evidence.Found != 11 {
		t.Errorf("%s, %+v, want one trip by the eleventh", g.Status, g.State)
	}
}

// Errors count since the flag was armed: a reset begins anew, an edit does not.
func TestErrorThresholdOverEdits(t *testing.T) {
	c := thresholds(t, `"error_threshold": 2`, failsIfAsked)
	for range 2 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	c.write("features.json", strings.Replace(c.file("features.json"), `"error_threshold": 2`, `"error_threshold": 3, "metadata": {"owner": "me"}`, 1))
	eventually(t, 5*time.Second, "the edit is in force", func() bool {
		definition, _ := c.api("GET", "flags/new_ui", "", 200)["definition"].(map[string]any)
		return definition["error_threshold"] == 3.0
	})
	c.get("/?fail", "X-User-ID", "alice")
	if g := c.guard("new_ui"); g.Status == "tripped" || g.Guard.Canary.Errors != 3 {
		t.Errorf("after an edit: %s with %d errors, want 3 and not tripped", g.Status, g.Guard.Canary.Errors)
	}
	c.api("POST", "flags/new_ui/reset", "", 200)
	for range 3 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	if g := c.guard("new_ui"); g.Status == "tripped" || g.Guard.Canary.Errors != 3 {
		t.Errorf("after a reset: %s with %d errors, want 3 and not tripped", g.Status, g.Guard.Canary.Errors)
	}
	c.get("/?fail", "X-User-ID", "alice")
	if g := c.guard("new_ui"); g.Status != "tripped" {
		t.Errorf("%s after the fourth, want tripped", g.Status)
	}
}

// Slow answers count by their first byte: more than the threshold trips.
func TestPerformanceThreshold(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("late") { // after the first byte
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Query().Has("slow") || r.URL.Query().Has("late") {
			time.Sleep(1200 * time.Millisecond)
		}
		return false
	}
	c := thresholds(t, `"performance_baseline": 1, "performance_threshold": 2`, slow)
	c.get("/?slow", "X-User-ID", "bob")
	for range 3 {
		c.get("/?late", "X-User-ID", "alice")
		c.get("/", "X-User-ID", "alice")
	}
	for n := range 3 {
		if g := c.guard("new_ui"); g.Status == "tripped" || g.Guard.Canary.Slow != n {
			t.Fatalf("%s with %d slow ones, want %d and not tripped", g.Status, g.Guard.Canary.Slow, n)
		}
		if r := c.get("/?slow", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "new\n") {
			t.Fatalf("slow request %d: %q", n+1, r.body)
		}
	}
	if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old\n") {
		t.Errorf("the next request: %q, want the old way", r.body)
	}
	g := c.guard("new_ui")
	if e := g.State.Trips[0].Evidence; g.Status != "tripped" || e.Test != "performance" || e.Found != 3 || e.Limit != 2 {
		t.Errorf("%s, %+v", g.Status, e)
	}
}

// A canary that hangs trips while its requests still wait: none has ended.
func TestPerformanceThresholdOfAHang(t *testing.T) {
	release := make(chan struct{})
	c := thresholds(t, `"performance_baseline": 0.3, "performance_threshold": 4`, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("hang") {
			<-release
		}
		return false
	})
	var waiting sync.WaitGroup
	begun := time.Now()
	for range 5 {
		waiting.Go(func() { _, _ = try(c.url(0)+"/?hang", "X-User-ID", "alice") })
	}
	eventually(t, 3*time.Second, "tripped", func() bool { return c.guard("new_ui").Status == "tripped" })
	took := time.Since(begun)
	g := c.guard("new_ui")
	if g.Guard.Figures.Canary.Requests != 0 {
		t.Errorf("%d requests had ended", g.Guard.Figures.Canary.Requests)
	}
	if e := g.State.Trips[0].Evidence; e.Test != "performance" || e.Found != 5 {
		t.Errorf("evidence %+v, want five slow ones", e)
	}
	if took < 300*time.Millisecond {
		t.Errorf("tripped after %s, want 300 ms at least", took)
	}
	if r := c.get("/?ok", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old\n") {
		t.Errorf("the next request: %q, want the old way", r.body)
	}
	close(release)
	waiting.Wait()
	if g := c.guard("new_ui"); len(g.State.Trips) != 1 || g.Guard.Canary.Slow != 5 {
		t.Errorf("when they have ended: %d trips, %d slow ones; want each counted once", len(g.State.Trips), g.Guard.Canary.Slow)
	}
}
