package tests

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// past is what the API says about a flag's history.
type past struct {
	Step   float64
	Points []struct {
		At              time.Time
		Canary, Control struct {
			Requests, Errors uint64
			ErrorRate        float64 `json:"error_rate"`
			P50, P99         float64
		}
		LogE       *float64 `json:"log_e"`
		TripAt     float64  `json:"trip_at"`
		Percentage float64
		Status     string
	}
	Warning string
}

func (p past) sum() (canary, errors, control uint64) {
	for _, point := range p.Points {
		canary, errors, control = canary+point.Canary.Requests, errors+point.Canary.Errors, control+point.Control.Requests
	}
	return canary, errors, control
}

// History is there at once, and outlives a process that ends in good order.
func TestHistory(t *testing.T) {
	old, canary := upstream(t, "old", nil), upstream(t, "new", nil)
	p := newProcess(t, `{
	admin ADMIN
	auto_https off
	persist_config off
	feature_flags {
		source file FEATURES
		state local STATE
	}
}
SITE {
`+twoWays+`}
`, `{"new_ui": {"active": true, "percentage_rollout": 50}}`, map[string]string{"NEW": host(canary), "OLD": host(old)})
	p.run()
	history := func(query string) (out past) {
		t.Helper()
		r := fetch(t, "http://"+p.admin+"/feature_flags/history/new_ui"+query)
		if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status != 200 || out.Warning != "" {
			t.Fatalf("%d %v %s", r.status, err, r.body)
		}
		return out
	}
	for i := range 100 {
		fetch(t, p.site+"/", "X-User-ID", fmt.Sprint("u", i))
	}
	var on, off uint64
	eventually(t, 5*time.Second, "the minute in progress is not there", func() bool {
		h := history("")
		on, _, off = h.sum()
		return on+off >= 100 && h.Points[len(h.Points)-1].LogE != nil
	})
	h := history("?last=10m")
	last := h.Points[len(h.Points)-1]
	if on < 20 || off < 20 || h.Step != 60 || last.Percentage != 50 || last.Status != "split" || last.Canary.P99 <= 0 || last.TripAt < 9 || time.Since(last.At) > 2*time.Minute {
		t.Errorf("%+v", h)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
	p.run()
	if a, _, b := history("?last=30d").sum(); a < on || b < off || a+b > on+off+10 {
		t.Errorf("after a restart %d and %d, before it %d and %d", a, b, on, off)
	}
	if h := history("?from=2026-01-01&to=2026-01-02"); len(h.Points) != 0 {
		t.Errorf("before it was there: %+v", h)
	}
	for query, words := range map[string]string{
		"?last=soon": "last:", "?last=-1h": "last:", "?last=9999d": "last:", "?from=then": "from:", "?to=" + url.QueryEscape("32nd"): "to:", "?from=2026-01-02&to=2026-01-01": "not before",
	} {
		if r := fetch(t, "http://"+p.admin+"/feature_flags/history/new_ui"+query); r.status != 400 || !strings.Contains(r.body, words) {
			t.Errorf("%s: %d %s", query, r.status, r.body)
		}
	}
	if r := fetch(t, "http://"+p.admin+"/feature_flags/history/nosuch"); r.status != 404 {
		t.Errorf("an unknown flag: %d %s", r.status, r.body)
	}
}
