package evaluator

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// WholeShare is 100 per cent.
const WholeShare = Share(wholeShare)

// Rollout are the steps that a percentage climbs, or walks down.
type Rollout struct {
	Steps       []Share       // only climbing or only falling; of a ramp its one or two ends
	Bake        time.Duration // at each step at least
	MinRequests int64         // of the canary, at each step at least
	Approve     []Share       // steps that wait for a person
	Over        time.Duration // a linear ramp instead of steps; 0: none
}

// Defaults of a rollout that does not say otherwise. A ramp asks for no requests.
const (
	DefaultBake        = 10 * time.Minute
	DefaultMinRequests = 20
)

// A ramp goes in a hundred steps, of ten seconds at least.
const (
	rampSteps = 100
	rampStep  = 10 * time.Second
)

// Schedule returns the shares that come in force one after another, one at least,
// and how long each stays at least.
func (r *Rollout) Schedule() (shares []Share, stay time.Duration) {
	if r.Over == 0 {
		return r.Steps, r.Bake
	}
	from, to := r.ends()
	const least = perCent / 1000 // as many decimals as definitions have
	n := max(1, min(rampSteps, int(r.Over/rampStep), int(max(to-from, from-to)/least)))
	for i := range n {
		shares = append(shares, from+(to-from)/least*Share(i+1)/Share(n)*least)
	}
	if from > 0 && from < wholeShare {
		shares = append([]Share{from}, shares...)
	}
	return shares, r.Over / time.Duration(n)
}

// ends are those of a ramp.
func (r *Rollout) ends() (from, to Share) {
	switch {
	case len(r.Steps) > 1:
		return r.Steps[0], r.Steps[len(r.Steps)-1]
	case len(r.Steps) == 1 && r.Steps[0] == 0:
		return wholeShare, 0
	case len(r.Steps) == 1:
		return 0, r.Steps[0]
	}
	return 0, wholeShare
}

// ParseShare returns the share of a percentage, from 0 to 100 with at most three
// decimals; the error says which rule is broken.
func ParseShare(percent float64) (Share, error) {
	thousandths := math.Round(percent * 1000)
	switch {
	case !(percent >= 0 && percent <= 100):
		return 0, fmt.Errorf("want a number from 0 to 100, got %g", percent)
	case math.Abs(percent*1000-thousandths) > 1e-6:
		return 0, fmt.Errorf("want at most three decimals, got %g", percent)
	}
	return Share(thousandths) * (perCent / 1000), nil
}

// Length is a duration that JSON has as people write it in definitions.
type Length time.Duration

// String gives it as 10m or 1h30m.
func (l Length) String() string { return formatDuration(time.Duration(l)) }

// MarshalJSON is part of json.Marshaler.
func (l Length) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }

// UnmarshalJSON is part of json.Unmarshaler.
func (l *Length) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	d, err := parseDuration(s)
	*l = Length(d)
	return err
}
