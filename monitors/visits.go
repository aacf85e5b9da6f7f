package monitors

// visits tells whose request is the first one in half an hour (in three quarters,
// if the clock falls so), and who has not
// come back half a minute after it: whether the canary drives its users away. It
// remembers a sample of the users where there are many. Not safe for concurrent
// use.
type visits struct {
	now     int64     // seconds
	recent  [3]*crowd // of this quarter of an hour, and of the two before
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
	user   uint64 // 0: the place is free
	came   int32  // second of the first request
	canary bool
	again  bool // came a second time
}

const (
	pendingVisits = 64
	visitGone     = 30      // seconds: who has not come back by then has left
	visitQuarter  = 15 * 60 // seconds
)

func (c *crowd) sampled(user uint64) bool { return user>>52&(1<<c.zeros-1) == 0 }

// note tells whether a request is a user's first in half an hour.
func (v *visits) note(of cohort, user uint64) (first bool) {
	place := &v.pending[user>>20%pendingVisits]
	if place.user == user {
		place.again = true
		return false
	}
	now := v.recent[0]
	if now == nil {
		now = newCrowd(0)
		v.recent[0] = now
	}
	if !now.sampled(user) || now.has(user) {
		return false
	}
	if fresh, full := now.add(user); !fresh {
		if full {
			v.recent = [3]*crowd{newCrowd(now.zeros + 1)}
		}
		return false
	}
	for _, before := range v.recent[1:] {
		if before != nil && before.sampled(user) && before.has(user) {
			return false
		}
	}
	if place.user == 0 {
		*place = visit{user: user, came: int32(v.now), canary: of == canary}
	}
	return true
}

// tick is called every second or so. It returns how many visits are over, and how
// many of them were left without a second request.
func (v *visits) tick(second int64) (over Stratum) {
	v.now = second
	if second-v.since >= visitQuarter {
		v.since = second
		last := v.recent[0]
		zeros := uint(0)
		if last != nil {
			zeros = last.zeros
			if zeros > 0 && last.levels[1] == nil {
				zeros-- // few come: more of them can be remembered again
			}
		}
		v.recent = [3]*crowd{newCrowd(zeros), last, v.recent[1]}
	}
	for i := range v.pending {
		p := &v.pending[i]
		if p.user == 0 || second-int64(p.came) < visitGone {
			continue
		}
		over.add(cohortOf(p.canary), !p.again)
		*p = visit{}
	}
	return over
}
