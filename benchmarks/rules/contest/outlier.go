package contest

import (
	"math"
	"time"
)

// outliers ejects hosts that are unlike the others, as Envoy's outlier detection
// does with its defaults (Istio's destination rules and gRPC's outlier detection
// are much the same): a host after 5 failures in a row, and every 10 s each host
// whose success rate is below the mean of all minus 1.9 standard deviations,
// among hosts with at least 100 requests in those 10 s, if there are at least 5
// of them. Not more than a tenth of the hosts is out at a time. An ejection lasts
// 30 s times the number of times that it has happened.
//
// Of two hosts, one of which is the canary, none is ever 1.9 standard deviations
// from their mean: it is one. So that the rule has a chance, each cohort runs on
// its part of ten hosts, at least one, that take turns. The first ejection of one
// of the canary's is the trip.
type outliers struct {
	hosts   []host
	canary  int    // of the hosts, the first
	turn    [2]int // whose it is, by cohort
	out     int    // hosts that are ejected
	swept   time.Duration
	tripped bool
}

type host struct {
	tally
	row   int           // failures, one after the other
	until time.Duration // it is ejected; 0: it is not
	times int           // it was
}

const (
	outlierHosts    = 10
	outlierMost     = 0.1 // of the hosts may be out
	outlierRow      = 5
	outlierInterval = 10 * time.Second
	outlierVolume   = 100
	outlierLeast    = 5 // hosts with that volume
	outlierFactor   = 1.9
	outlierBase     = 30 * time.Second
	outlierLongest  = 300 * time.Second
)

func newOutliers(share float64) *outliers {
	n := int(math.Round(share * outlierHosts))
	return &outliers{hosts: make([]host, outlierHosts), canary: min(max(n, 1), outlierHosts-1)}
}

func (r *outliers) Ended(a *Answer) {
	if a.Gone {
		return
	}
	i := r.next(a.Canary)
	h := &r.hosts[i]
	h.add(a.Failed)
	if !a.Failed {
		h.row = 0
		return
	}
	if h.row++; h.row == outlierRow {
		h.row = 0
		r.eject(i, a.Ended)
	}
}

// next is the host of a cohort whose turn it is.
func (r *outliers) next(canary bool) int {
	from, n, k := r.canary, len(r.hosts)-r.canary, 0
	if canary {
		from, n, k = 0, r.canary, 1
	}
	for range n {
		r.turn[k] = (r.turn[k] + 1) % n
		if r.hosts[from+r.turn[k]].until == 0 {
			break
		}
	}
	return from + r.turn[k]
}

func (r *outliers) eject(i int, now time.Duration) {
	if h := &r.hosts[i]; h.until == 0 && float64(r.out+1) <= max(outlierMost*float64(len(r.hosts)), 1) {
		h.times++
		h.until = now + min(time.Duration(h.times)*outlierBase, outlierLongest)
		r.out++
		r.tripped = r.tripped || i < r.canary
	}
}

func (r *outliers) Tick(now time.Duration) bool {
	if now-r.swept >= outlierInterval {
		r.swept = now
		r.sweep(now)
	}
	return r.tripped
}

func (r *outliers) sweep(now time.Duration) {
	var rates []float64
	var sum, squares float64
	for i := range r.hosts {
		h := &r.hosts[i]
		switch {
		case h.until == 0 && h.times > 0:
			h.times-- // another interval without an ejection
		case h.until != 0 && now >= h.until:
			h.until = 0
			r.out--
		}
		if h.n >= outlierVolume {
			rates = append(rates, 1-h.share())
			sum += 1 - h.share()
		}
	}
	mean := sum / float64(len(rates))
	for _, rate := range rates {
		squares += (rate - mean) * (rate - mean)
	}
	below := mean - outlierFactor*math.Sqrt(squares/float64(len(rates)))
	for i := range r.hosts {
		if h := &r.hosts[i]; len(rates) >= outlierLeast && h.n >= outlierVolume && 1-h.share() < below {
			r.eject(i, now)
		}
		r.hosts[i].tally = tally{}
	}
}
