package monitors

import (
	"sync/atomic"
)

// visits tells whose request is the first one in half an hour (in three quarters,
// if the clock falls so), and who has not
// come back half a minute after it: whether the canary drives its users away. It
// remembers a sample of the users where there are many. Safe for concurrent use
// but for tick.
type visits struct {
	now     atomic.Int64             // seconds
	recent  [3]atomic.Pointer[crowd] // of this quarter of an hour, and of the two before
	pending [pendingVisits]visit

	since int64 // when this quarter began
}

// crowd is a set of users, of whom a sample is remembered: those whose hash ends
// in so many zeros.
type crowd struct {
	people
	zeros uint
}

func newCrowd(zeros uint) *crowd { return &crowd{people{small: true}, zeros} }

// visit is somebody who has come and may come back.
type visit struct {
	user atomic.Uint64 // 0: the place is free
	came atomic.Int64  // second of the first request, with flags below
}

const (
	pendingVisits = 64
	visitGone     = 30      // seconds: who has not come back by then has left
	visitQuarter  = 15 * 60 // seconds
	visitedAgain  = 1 << 62
	visitOfCanary = 1 << 61
	visitSecond   = visitOfCanary - 1
)

func (c *crowd) sampled(user uint64) bool { return user>>52&(1<<c.zeros-1) == 0 }

// note tells whether a request is a user's first in half an hour.
func (v *visits) note(of cohort, user uint64) (first bool) {
	place := &v.pending[user>>20%pendingVisits]
	if place.user.Load() == user {
		if came := place.came.Load(); came != 0 && came&visitedAgain == 0 {
			place.came.CompareAndSwap(came, came|visitedAgain) // unless it is over just now
		}
		return false
	}
	now := v.recent[0].Load()
	if now == nil {
		v.recent[0].CompareAndSwap(nil, newCrowd(0))
		now = v.recent[0].Load()
	}
	if !now.sampled(user) || now.has(user) {
		return false
	}
	if fresh, full := now.add(user); !fresh {
		if full {
			v.recent[0].CompareAndSwap(now, newCrowd(now.zeros+1))
			v.recent[1].Store(nil)
			v.recent[2].Store(nil)
		}
		return false
	}
	for i := range v.recent[1:] {
		if before := v.recent[1+i].Load(); before != nil && before.sampled(user) && before.has(user) {
			return false
		}
	}
	if place.user.CompareAndSwap(0, user) {
		came := v.now.Load() + 1
		if of == canary {
			came |= visitOfCanary
		}
		place.came.Store(came)
	}
	return true
}

// tick is called every second or so. It returns how many visits are over, and how
// many of them were left without a second request.
func (v *visits) tick(second int64) (over Stratum) {
	v.now.Store(second)
	if second-v.since >= visitQuarter {
		v.since = second
		last := v.recent[0].Load()
		zeros := uint(0)
		if last != nil {
			zeros = last.zeros
			if zeros > 0 && last.levels[1].Load() == nil {
				zeros-- // few come: more of them can be remembered again
			}
		}
		v.recent[2].Store(v.recent[1].Load())
		v.recent[1].Store(last)
		v.recent[0].Store(newCrowd(zeros))
	}
	for i := range v.pending {
		p := &v.pending[i]
		came := p.came.Load()
		if came == 0 || second-(came&visitSecond-1) < visitGone {
			continue
		}
		over.add(cohortOf(came&visitOfCanary != 0), came&visitedAgain == 0)
		p.came.Store(0)
		p.user.Store(0)
	}
	return over
}
