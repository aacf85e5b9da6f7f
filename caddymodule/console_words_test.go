package caddymodule

import (
	"math"
	"testing"
	"time"
)

func TestChance(t *testing.T) {
	for e, want := range map[float64]string{
		0.2: "nothing against it", 1: "nothing against it", 2: "1 in 2 by chance", 999.6: "1 in 1,000 by chance", 16_000: "1 in 16,000 by chance",
		1e7: "1 in 10,000,000 by chance", 1e30: "less than 1 in 1,000,000,000 by chance",
	} {
		if got := chance(math.Log(e)); got != want {
			t.Errorf("%g: %q, want %q", e, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for back, want := range map[time.Duration]string{
		-time.Minute: "in the future", 0: "now", 59 * time.Second: "now", 5 * time.Minute: "5 min ago", 3 * time.Hour: "3 h ago", 72 * time.Hour: "3 d ago",
	} {
		if got := ago(now, now.Add(-back)); got != want {
			t.Errorf("%s: %q, want %q", back, got, want)
		}
	}
	if got := ago(now, time.Time{}); got != "–" {
		t.Errorf("never: %q", got)
	}
}

// A moment is read as pages show it without a script, and as definitions have it.
func TestParseTyped(t *testing.T) {
	for text, want := range map[string]string{
		"2026-01-31 12:00:05 UTC":   "2026-01-31T12:00:05Z",
		"2026-01-31 12:00:05":       "2026-01-31T12:00:05Z",
		" 2026-01-31 12:00":         "2026-01-31T12:00:00Z",
		"2026-01-31T12:00:00+02:00": "2026-01-31T10:00:00Z",
		"2026-01-31":                "2026-01-31T00:00:00Z",
		"2026-01-31T10:00:00.000Z":  "2026-01-31T10:00:00Z",
		"noon":                      "",
	} {
		m, err := parseTyped(text)
		if (err == nil) != (want != "") {
			t.Errorf("%q: %v", text, err)
		} else if got := time.Time(m).UTC().Format(time.RFC3339); err == nil && got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
