package tests

import (
	"strings"
	"testing"
	"time"
)

// With the poll that a user gets without asking, a change is in force within
// 2.1 s, with no reload. A machine that has stopped for a moment may spoil two
// measurements of five.
func TestChangeInForceWithin2100ms(t *testing.T) {
	p := newProcess(t, strings.ReplaceAll(processCaddyfile, "poll 100ms", "poll 2s"), oneFlag, map[string]string{
		"NEW": host(upstream(t, "new", nil)), "OLD": host(upstream(t, "old", nil)),
	})
	p.run()
	var late []time.Duration
	for i := range 5 {
		want, percent := "new", "100"
		if i%2 == 1 {
			want, percent = "old", "0"
		}
		time.Sleep(time.Duration(i) * 430 * time.Millisecond) // at another point of the poll each time
		p.write("features.json", `{"new_ui": {"active": true, "percentage_rollout": `+percent+`}}`)
		written := time.Now()
		eventually(t, 10*time.Second, "the change is not in force", func() bool { return p.way("bob") == want })
		if took := time.Since(written); took > 2100*time.Millisecond {
			late = append(late, took)
		}
	}
	if len(late) > 2 {
		t.Errorf("of five changes these were in force too late: %s", late)
	}
}
