package contest

import "time"

// ratio trips when the canary's error rate over a sliding window reaches a
// share, given a least number of requests: circuit breakers, and alerts on an
// error rate. Hystrix opens at 50 % of at least 20 requests in 10 s, in ten
// buckets, and takes a command for failed that is not done after 1 s;
// resilience4j at 50 % of 100 calls; Polly at 10 % of at least 100 calls in 30 s.
// 5 % over a minute is what alerts often ask for.
type ratio struct {
	window
	share, least float64
	patience     time.Duration // what takes longer has failed; 0: wait for the end
	waiting      []*Answer     // with patience: in the order of arrival
}

func newRatio(share, least float64, in, patience time.Duration) *ratio {
	return &ratio{window: newWindow(in), share: share, least: least, patience: patience}
}

func (r *ratio) Arrived(a *Answer) {
	if a.Canary && r.patience > 0 {
		r.waiting = append(r.waiting, a)
	}
}

func (r *ratio) Ended(a *Answer) {
	if !a.Canary || a.Gone || r.patience > 0 && a.took() > r.patience {
		return
	}
	r.add(a.Ended, a.Failed)
}

func (r *ratio) Tick(now time.Duration) bool {
	for len(r.waiting) > 0 && r.waiting[0].Arrived+r.patience <= now {
		if r.waiting[0].took() > r.patience {
			r.add(now, true)
		}
		r.waiting = r.waiting[1:]
	}
	r.slide(now)
	return r.sum.n >= r.least && r.sum.share() >= r.share
}
