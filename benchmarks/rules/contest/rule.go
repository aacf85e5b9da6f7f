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
	Says string                   // what it is, in words
	New  func(share float64) Rule // for a share of the users in the canary; nil: it is the guard
}

// Entries are the guard, which is the first, and the rules.
var Entries = []Entry{
	{Name: "guard", Says: "the guard of this project as it is by default"},
	{
		Name: "10 errors", Says: "10 failures of the canary since the start: a counter that is never cleared",
		New: func(float64) Rule { return &total{limit: 10} },
	},
	{
		Name: "10 errors a minute", Says: "10 failures of the canary within a minute: passive health checks, alarms on a count",
		New: func(float64) Rule { return newFrequency(10, time.Minute) },
	},
	{
		Name: "5 in a row", Says: "5 failures of the canary, one after the other: Envoy, Istio, HAProxy, gobreaker",
		New: func(float64) Rule { return &row{limit: 5} },
	},
	{
		Name: "50 % of 10 s", Says: "half of at least 20 canary requests in 10 s failed or took more than 1 s: Hystrix; resilience4j and Polly are of the kind",
		New: func(float64) Rule { return newRatio(0.5, 20, 10*time.Second, time.Second) },
	},
	{
		Name: "5 % of 1 min", Says: "5 % of at least 20 canary requests in a minute failed: an alert on the error rate",
		New: func(float64) Rule { return newRatio(0.05, 20, time.Minute, 0) },
	},
	{
		Name: "outliers", Says: "success rate of a canary host 1.9 standard deviations below the mean of ten hosts, over 10 s: Envoy",
		New: func(share float64) Rule { return newOutliers(share) },
	},
	{
		Name: "polled, 1 min", Says: "five times less than 99 % success, or a p99 above 500 ms, in a minute: Flagger",
		New: func(float64) Rule { return newFlagger() },
	},
	{
		Name: "polled, 5 min", Says: "four times less than 95 % success in 5 minutes: Argo Rollouts",
		New: func(float64) Rule { return newArgo() },
	},
	{
		Name: "z-test", Says: "more errors than the control since the start by a z-test at p < 0.001, looked at every 10 s",
		New: func(float64) Rule { return &peeking{} },
	},
}
