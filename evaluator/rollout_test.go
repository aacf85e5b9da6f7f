package evaluator

import (
	"slices"
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	f := func(text string, stay time.Duration, n int, first ...float64) {
		t.Helper()
		doc, err := Decode("t", []byte(`{"f": {"active": true, "rollout": {`+text+`}}}`))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		shares, got := doc.Flags[0].Rollout.Schedule()
		if got != stay || len(shares) != n {
			t.Errorf("%s: %d steps of %s, want %d of %s", text, len(shares), got, n, stay)
		}
		for i, want := range first {
			if shares[i].Percent() != want {
				t.Errorf("%s: step %d is %g, want %g", text, i, shares[i].Percent(), want)
			}
		}
		falls := shares[len(shares)-1] < shares[0]
		if !slices.IsSortedFunc(shares, func(a, b Share) int { return int(a-b) * map[bool]int{false: 1, true: -1}[falls] }) {
			t.Errorf("%s: %v neither climbs nor falls", text, shares)
		}
	}
	f(`"steps": [1, 5, 25, 50, 100]`, 10*time.Minute, 5, 1, 5, 25, 50, 100)
	f(`"steps": [50, 10, 0], "bake": "0s"`, 0, 3, 50, 10, 0)
	f(`"over": "6h"`, 216*time.Second, 100, 1, 2, 3)
	f(`"over": "1m"`, 10*time.Second, 6, 16.666, 33.333, 50, 66.666, 83.333, 100)
	f(`"over": "1h", "steps": [10, 60]`, 36*time.Second, 101, 10, 10.5, 11)
	f(`"over": "1h", "steps": [0]`, 36*time.Second, 100, 99, 98)
	f(`"over": "1h", "steps": [20]`, 36*time.Second, 100, 0.2, 0.4)
	f(`"over": "365d", "steps": [0, 0.01]`, 876*time.Hour, 10, 0.001, 0.002)
}

// Without any state a flag is at its rollout's first step.
func TestRolloutBeginsAtItsFirstStep(t *testing.T) {
	doc, err := Decode("t", []byte(`{
		"up": {"active": true, "percentage_rollout": 50, "rollout": {"steps": [1, 100]}},
		"down": {"active": true, "rollout": {"steps": [90, 0]}},
		"ramp": {"active": true, "rollout": {"over": "1h"}},
		"none": {"active": true, "rollout": {"steps": [0, 5]}}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	r := p.With(nil)
	for name, want := range map[string]float64{"up": 1, "down": 90, "ramp": 1, "none": 0} {
		i := r.Index(name)
		if got := r.Share(i).Percent(); got != want || r.Splits(i) != (want > 0) {
			t.Errorf("%s: %g %%, splits %t, want %g", name, got, r.Splits(i), want)
		}
	}
	half := ShareOf(50)
	r = p.With(map[string]State{"up": {Share: &half}, "none": {Share: &half}})
	for _, name := range []string{"up", "none"} {
		if i := r.Index(name); r.Share(i) != half || !r.Splits(i) {
			t.Errorf("%s: %g %%, splits %t, want 50", name, r.Share(i).Percent(), r.Splits(i))
		}
	}
}

func TestParseShare(t *testing.T) {
	for given, want := range map[float64]Share{0: 0, 100: WholeShare, 12.5: 1_250_000, 0.001: 100, 33.333: 3_333_300} {
		if got, err := ParseShare(given); got != want || err != nil {
			t.Errorf("%g: %d, %v, want %d", given, got, err, want)
		}
	}
	for _, given := range []float64{-1, 100.001, 0.0001} {
		if got, err := ParseShare(given); err == nil {
			t.Errorf("%g: %d, want an error", given, got)
		}
	}
}

func TestLength(t *testing.T) {
	for given, want := range map[string]string{`"10m"`: "10m", `"90s"`: "1m30s", `"2d"`: "2d", `"0s"`: "0s"} {
		var l Length
		if err := l.UnmarshalJSON([]byte(given)); err != nil || l.String() != want {
			t.Errorf("%s: %s, %v", given, l, err)
		}
	}
}
