package contest

import "time"

// polled asks a metrics store about the canary again and again, as rollout
// controllers do. A check that finds no requests has failed.
type polled struct {
	interval time.Duration // of the checks, and what each looks at
	success  float64       // least share of requests that must not have failed
	p99      time.Duration // most for the duration of the request; 0: not asked
	failures int           // failed checks, since the start, until it trips
	late     bool          // it acts one interval after the check that was one too many

	seen, slow tally
	checked    time.Duration
	failed     int
}

// newFlagger is Flagger's analysis as its documents show it: every minute the
// success rate of the last must be 99 % at least and its p99 500 ms at most; five
// failed checks, in a row or not, roll back when the next is due. No values
// counts as a failed check.
func newFlagger() *polled {
	return &polled{interval: time.Minute, success: 0.99, p99: 500 * time.Millisecond, failures: 5, late: true}
}

// newArgo is the background analysis of Argo Rollouts as its documents show it:
// every five minutes the success rate must be 95 % at least; a failureLimit of 3
// means that the fourth failed measurement aborts. The default limit is 0. No
// values are not a number, which is not 95 % either.
func newArgo() *polled {
	return &polled{interval: 5 * time.Minute, success: 0.95, failures: 4}
}

func (r *polled) Ended(a *Answer) {
	if a.Canary {
		r.seen.add(a.Failed)
		r.slow.add(r.p99 > 0 && a.took() > r.p99)
	}
}

func (r *polled) Tick(now time.Duration) bool {
	if now-r.checked < r.interval {
		return false
	}
	r.checked = now
	if r.late && r.failed >= r.failures {
		return true
	}
	if r.seen.n == 0 || 1-r.seen.share() < r.success || r.slow.share() > 0.01 {
		r.failed++
	}
	r.seen, r.slow = tally{}, tally{}
	return !r.late && r.failed >= r.failures
}
