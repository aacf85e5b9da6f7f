package contest

import (
	"math"
	"time"
)

// row trips when so many of the canary's requests fail one after the other:
// Envoy's outlier detection (consecutive_5xx 5) and with it Istio's, which leaves
// nothing else of it turned on; HAProxy's "observe layer7" (error-limit 10);
// gobreaker, unless told otherwise (more than 5).
type row struct{ limit, failed int }

func (r *row) Ended(a *Answer) {
	switch {
	case !a.Canary || a.Gone || r.failed >= r.limit:
	case a.Failed:
		r.failed++
	default:
		r.failed = 0
	}
}

func (r *row) Tick(time.Duration) bool { return r.failed >= r.limit }

// outliers looks for hosts that are unlike the others, as the other half of
// Envoy's outlier detection does with its defaults: every 10 s a host is ejected
// whose success rate is below the mean of all minus 1.9 standard deviations, among
// hosts with at least 100 requests in those 10 s, if there are at least 5 of them.
//
// Of two hosts, one of which is the canary, none is ever 1.9 standard deviations
// from their mean: both are one. So that the rule has a chance, each cohort runs
// on its part of ten hosts, at least one, that take turns. The first ejection of
// one of the canary's is the trip; Envoy would try it again after 30 s. The
// control's stay, so that max_ejection_percent (10) never spares the canary.
type outliers struct {
	hosts  []tally
	canary int    // of the hosts, the first
	turn   [2]int // of the cohorts
	swept  time.Duration
}

const (
	outlierHosts    = 10
	outlierInterval = 10 * time.Second
	outlierVolume   = 100
	outlierLeast    = 5 // hosts with that volume
	outlierFactor   = 1.9
)

func newOutliers(share float64) *outliers {
	n := int(math.Round(share * outlierHosts))
	return &outliers{hosts: make([]tally, outlierHosts), canary: min(max(n, 1), outlierHosts-1)}
}

func (r *outliers) Ended(a *Answer) {
	switch {
	case a.Gone:
	case a.Canary:
		r.turn[0] = (r.turn[0] + 1) % r.canary
		r.hosts[r.turn[0]].add(a.Failed)
	default:
		r.turn[1] = (r.turn[1] + 1) % (len(r.hosts) - r.canary)
		r.hosts[r.canary+r.turn[1]].add(a.Failed)
	}
}

func (r *outliers) Tick(now time.Duration) (trip bool) {
	if now-r.swept < outlierInterval {
		return false
	}
	r.swept = now
	var n, sum, squares float64
	for _, h := range r.hosts {
		if h.n >= outlierVolume {
			n++
			sum += h.share()
		}
	}
	for _, h := range r.hosts {
		if h.n >= outlierVolume {
			squares += (h.share() - sum/n) * (h.share() - sum/n)
		}
	}
	for i, h := range r.hosts {
		if i < r.canary && n >= outlierLeast && h.n >= outlierVolume && h.share() > sum/n+outlierFactor*math.Sqrt(squares/n) {
			trip = true
		}
		r.hosts[i] = tally{}
	}
	return trip
}
