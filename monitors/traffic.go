package monitors

import (
	"fmt"
	"math"
	"time"
)

// The traffic monitor compares a minute with a minute: the requests of the
// last trafficWindow with those of the trafficWindow before the flag was
// turned on. Below trafficFloor requests in that window it says nothing.
const (
	trafficWindow = 60 // seconds
	trafficFloor  = 60 // requests before the flag was turned on, one a second
	trafficSigmas = 4  // a drop past the threshold must be this clear
	keptSeconds   = 2*trafficWindow + 2
)

// traffic keeps a flag's exposures by second. Not safe for concurrent use.
type traffic struct {
	seconds [keptSeconds]int64 // a ring; seconds[n%keptSeconds] is the last whole one
	n       int64              // whole seconds seen
	total   int64              // exposures at the end of the last one
	at      time.Time          // when that was
	seen    bool
}

// advance takes the number of exposures so far and tells whether a second has
// become whole. Seconds that nobody ticked in share what arrived in them evenly.
func (t *traffic) advance(now time.Time, total int64) bool {
	if !t.seen {
		t.seen, t.at, t.total = true, now, total
		return false
	}
	whole := int64(now.Sub(t.at) / time.Second)
	if whole <= 0 {
		return false
	}
	arrived := total - t.total
	if whole > keptSeconds { // of a long pause the last seconds' share
		arrived = int64(float64(arrived) * keptSeconds / float64(whole))
	}
	for left := min(whole, keptSeconds); left > 0; left-- {
		share := arrived / left
		arrived -= share
		t.n++
		t.seconds[t.n%keptSeconds] = share
	}
	t.at = t.at.Add(time.Duration(whole) * time.Second)
	t.total = total
	return true
}

// lastWindow returns the exposures of the last window, and whether a whole
// window has been seen.
func (t *traffic) lastWindow() (sum int64, whole bool) {
	for i := range min(t.n, trafficWindow) {
		sum += t.seconds[(t.n-i)%keptSeconds]
	}
	return sum, t.n >= trafficWindow
}

// Baseline is a flag's traffic before it was turned on.
type Baseline struct {
	Since    time.Time `json:"since"`    // when it was turned on
	Requests int64     `json:"requests"` // in the window before; -1: not known
}

// PerSecond returns the rate before the flag was turned on.
func (b Baseline) PerSecond() float64 { return float64(b.Requests) / trafficWindow }

// dropped tells whether now is less than the baseline by more than the
// threshold, and clearly so: both counts are taken as Poisson's.
func dropped(baseline, now int64, threshold float64) bool {
	if baseline < trafficFloor {
		return false
	}
	keep := 1 - threshold/100
	expected := float64(baseline) * keep
	noise := math.Sqrt(expected*keep + float64(now))
	return expected-float64(now) > trafficSigmas*noise
}

func trafficSummary(b Baseline, now int64, threshold float64) string {
	return fmt.Sprintf("%.1f requests a second over the last minute, %.1f in the minute before the flag was turned on at %s: a drop of %.0f %%, more than traffic_drop_threshold %g",
		float64(now)/trafficWindow, b.PerSecond(), b.Since.UTC().Format(time.RFC3339), 100*(1-float64(now)/float64(b.Requests)), threshold)
}
