package monitors

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// guardBlock counts the requests of about a tenth of a second, by arrival. What a
// request adds after the block is judged changes nothing any more.
type guardBlock struct {
	guard   *Guard
	share   float64     // of the users whom the split puts into the canary
	limits  *slowLimits // what is slow; nil: latency does not count
	cohorts [2]guardCounts
	crowd   atomic.Uint64 // 64 bits of the canary's users

	anonymous atomic.Bool // some came without a user

	over  time.Time // when it was sealed
	count [2]int64  // arrived by then
	last  bool      // of its epoch: what is open after it is not pooled with what comes

	mu     sync.Mutex
	failed []failure
	taken  bool
}

type guardCounts struct {
	arrived  atomic.Uint32 // with sealed
	answered atomic.Uint32 // the answer began
	silent   atomic.Uint32 // ended without
	ended    atomic.Uint32
	gone     atomic.Uint32 // the client left
	firsts   atomic.Uint32 // of a user in half an hour
	others   atomic.Uint32 // of users who had met an error before: they count no more
	slow     [len(latencyQuantiles)]atomic.Uint32
}

const (
	sealed       = 1 << 31
	mostFailures = 4096 // of a block that are kept
)

type failure struct {
	user uint64
	of   cohort
}

// used tells whether anything has arrived.
func (b *guardBlock) used() bool {
	return b.cohorts[control].arrived.Load() > 0 || b.cohorts[canary].arrived.Load() > 0 ||
		b.cohorts[control].others.Load() > 0 || b.cohorts[canary].others.Load() > 0
}

// done tells whether all requests of a sealed block have ended.
func (b *guardBlock) done() bool {
	return int64(b.cohorts[control].ended.Load()) >= b.count[control] && int64(b.cohorts[canary].ended.Load()) >= b.count[canary]
}

func (b *guardBlock) fail(f failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.taken && len(b.failed) < mostFailures {
		b.failed = append(b.failed, f)
	}
}

// take returns the failures, and ends their noting.
func (b *guardBlock) take() []failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = true
	return b.failed
}

// victims are the users of the canary who met an error: exactly as long as they
// are few.
type victims struct {
	known map[uint64]struct{}
	more  int   // without a user, or beyond those that are kept
	after int64 // requests of the canary before the last one
}

const keptVictims = 1024

func (v *victims) add(user uint64, after int64) {
	v.after = after
	if user == 0 || len(v.known) >= keptVictims {
		v.more++
		return
	}
	if v.known == nil {
		v.known = map[uint64]struct{}{}
	}
	v.known[user] = struct{}{}
}

// unanswered adds the users of a block, n of whose requests had no answer.
func (v *victims) unanswered(b *guardBlock, n, after int64) {
	if v.after = after; b.anonymous.Load() {
		v.more += int(n)
	} else {
		v.more += min(int(n), bits.OnesCount64(b.crowd.Load()))
	}
}

func (v *victims) count() int { return len(v.known) + v.more }

func (v *victims) clear() {
	clear(v.known)
	v.more = 0
}
