// Package contest plays the same requests through the guard and through the
// rules in common use.
package contest

import "time"

// Rule decides about a canary from what requests come to. All times count from
// the beginning of the traffic. Not safe for concurrent use.
type Rule interface {
	// Ended tells of an answer that has come to its end, in the order of the ends.
	Ended(a *Answer)

	// Tick comes ten times a second, after what has ended by now, and tells
	// whether the rule would trip.
	Tick(now time.Duration) bool
}

// listener is a rule that wants to know of requests as they arrive, too.
type listener interface {
	Rule
	Arrived(a *Answer)
}

// Answer is a request and what it comes to. A rule must not look at what is
// later than the moment at which it is told.
type Answer struct {
	Arrived, Ended time.Duration // Ended: never, if the request has no end
	Canary         bool
	Failed         bool
	Gone           bool // the client left before the end: no failure of the service
}

const never = time.Duration(1<<63 - 1)

// took is how long the answer took.
func (a *Answer) took() time.Duration {
	if a.Ended == never {
		return never
	}
	return a.Ended - a.Arrived
}

// Entry is a rule of the contest.
type Entry struct {
	Name string                   // the column's title
	New  func(share float64) Rule // share of users in the canary; nil: it is the guard
}

// Entries are the guard, which is the first, and the rules.
var Entries = []Entry{
	{Name: "guard"},
	{Name: "10 errors", New: func(float64) Rule { return &total{limit: 10} }},
	{Name: "10 errors in 1 min", New: func(float64) Rule { return newFrequency(10, time.Minute) }},
	{Name: "50 % in 10 s", New: func(float64) Rule { return newRatio(0.5, 20, 10*time.Second, time.Second) }},
	{Name: "5 % in 1 min", New: func(float64) Rule { return newRatio(0.05, 20, time.Minute, 0) }},
	{Name: "outliers", New: func(share float64) Rule { return newOutliers(share) }},
	{Name: "polled, 1 min", New: func(float64) Rule { return newFlagger() }},
	{Name: "polled, 5 min", New: func(float64) Rule { return newArgo() }},
	{Name: "z-test", New: func(float64) Rule { return &peeking{} }},
}
