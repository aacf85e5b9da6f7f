package monitors

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// guard compares one flag's canary with its control while requests pass. The
// request path adds to counters of the tenth of a second in which a request
// arrived, and marks when its answer begins and ends; settle closes blocks in
// their order and has them judged. Requests that the split did not decide do not
// belong here.
//
// It holds no list of requests but of those that failed, a bounded one a block.
// arrive, answer and end are safe for concurrent use with each other and with
// settle; settle is not with itself.
type guard struct {
	config guardConfig
	begin  time.Time
	blocks []guardBlock // a ring
	next   atomic.Int64 // the first block that is not settled; only settle moves it
	since  [2]atomic.Int64

	erred users // who has met an error: counts no more
	seen  [2]users
	slowness

	// Only settle touches what follows.
	judge    *judge
	open     settledBlock // what waits until both cohorts have requests
	judged   Stratum      // all of it so far, for people
	people   time.Time    // when users were last forgotten
	failing  [2]float64   // users who erred since then, by cohort
	victims  users        // of the canary who erred, ever
	affected int          // how many they are, and those who waited in vain
	rereadAt time.Time
}

// guardConfig is the definition's guard.
type guardConfig struct {
	judgeConfig
	tolerateSlow float64       // a fraction: 0.1 is 10 % slower
	warmUp       time.Duration // of a cohort, from its first request: its latency does not count
	settle       time.Duration // a block waits for its requests at least so long
	userEpoch    time.Duration // who erred is forgotten after it
	minUsers     int           // of the canary, who must have met an error before a trip by errors
	anyTraffic   bool          // traffic may trip, too
}

// guardBlock is a place of the ring. Its counters belong to one block at a time,
// whose turn they carry.
type guardBlock struct {
	cohorts [2]guardCounts
	crowd   atomic.Uint64 // 64 bits of the canary's users

	mu     sync.Mutex
	turn   uint32 // of failed
	failed []failure
}

type guardCounts struct {
	arrived, answered, ended, gone, silent, slowKnown tally
	slow                                              [len(latencyQuantiles)]tally
}

// tally counts in its lower half; the upper half is the turn that it counts for.
type tally struct{ state atomic.Uint64 }

// add counts one for a turn, and returns false when that is over.
func (t *tally) add(turn uint32) bool {
	if uint32(t.state.Add(1)>>32) == turn {
		return true
	}
	t.state.Add(^uint64(0))
	return false
}

func (t *tally) count() int64 { return int64(uint32(t.state.Load())) }

// take ends a turn and returns its count.
func (t *tally) take(turn uint32) int64 { return int64(uint32(t.state.Swap(uint64(turn+1) << 32))) }

type failure struct {
	user uint64
	of   cohort
}

const (
	guardBlocks   = 1 << 10 // 102 s
	mostFailures  = 4096    // of a block that are kept
	userBits      = 1 << 16
	victimBits    = 1 << 10
	warmUpLimit   = 10 * time.Second // blocks wait at least so long while the canary warms up
	mostLimit     = 60 * time.Second // and never longer
	fewUsers      = 50
	fewUsersEpoch = 10 * time.Second
	erredShare    = 0.25 // of fewUsers or more of a cohort who erred: all are forgotten
	rereadEvery   = time.Minute
)

func newGuard(now time.Time, c guardConfig) *guard {
	return &guard{
		config: c, begin: now, people: now, rereadAt: now.Add(rereadEvery),
		blocks: make([]guardBlock, guardBlocks),
		erred:  newUsers(userBits), seen: [2]users{newUsers(userBits), newUsers(userBits)}, victims: newUsers(victimBits),
		judge: newJudge(c.judgeConfig),
	}
}

// ticket follows one request. The zero ticket is of one that does not count.
type ticket struct {
	guard *guard
	user  uint64
	block int64
	of    cohort
	begun bool
}

// arrive notes a request of a user, whose hash is never 0.
func (g *guard) arrive(now time.Time, of cohort, user uint64) ticket {
	since := now.Sub(g.begin)
	i := int64(since / blockLength)
	if g.erred.has(user) || i < g.next.Load() || i-g.next.Load() >= guardBlocks {
		return ticket{}
	}
	g.since[of].CompareAndSwap(0, int64(since)+1)
	g.seen[of].add(user)
	b, turn := g.block(i)
	if !b.cohorts[of].arrived.add(turn) {
		return ticket{} // settled just now
	}
	if of == canary {
		b.crowd.Or(1 << (user % 64))
	}
	return ticket{guard: g, user: user, block: i, of: of}
}

func (g *guard) block(i int64) (b *guardBlock, turn uint32) {
	return &g.blocks[i%guardBlocks], uint32(i / guardBlocks)
}

// answer notes that the answer has begun, wait after the arrival.
func (t *ticket) answer(wait time.Duration) {
	if t.begun || t.guard == nil {
		return
	}
	t.begun = true
	if t.of == control {
		t.guard.past.add(wait)
	}
	b, turn := t.guard.block(t.block)
	c := &b.cohorts[t.of]
	if !c.answered.add(turn) {
		return // settled: it was too late
	}
	if slow, known := t.guard.slow(t.of, wait); known && t.guard.warm(t.of, t.block) {
		c.slowKnown.add(turn)
		for i := range slow {
			if slow[i] {
				c.slow[i].add(turn)
			}
		}
	}
}

// end notes that the request is over: bad, or its client has gone, or neither.
func (t *ticket) end(bad, gone bool) {
	if t.guard == nil {
		return
	}
	b, turn := t.guard.block(t.block)
	c := &b.cohorts[t.of]
	switch {
	case gone:
		c.gone.add(turn)
	case bad:
		b.fail(turn, failure{t.user, t.of})
	}
	if !t.begun {
		t.begun = true
		c.silent.add(turn)
	}
	c.ended.add(turn) // the last: now the block may be settled
}

func (b *guardBlock) fail(turn uint32, f failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.turn == turn && len(b.failed) < mostFailures {
		b.failed = append(b.failed, f)
	}
}

// warm tells whether a cohort has been served for long enough when block i began
// that its latency counts.
func (g *guard) warm(of cohort, i int64) bool {
	since := g.since[of].Load()
	return since > 0 && i*int64(blockLength)-since >= int64(g.config.warmUp)
}

// verdict is what the guard comes to.
type verdict struct {
	evidence
	trip bool
}

// settle closes the blocks that are over: whose requests have all ended, or
// that are older than the limit. It stops at the first that trips.
func (g *guard) settle(now time.Time) (v verdict) {
	if now.After(g.rereadAt) {
		g.rereadAt = now.Add(rereadEvery)
		g.reread(g.config.tolerateSlow)
	}
	g.forget(now)
	limit := g.limit(now)
	age := now.Sub(g.begin)
	for i := g.next.Load(); ; i++ {
		old := age - time.Duration(i+1)*blockLength
		if old < 0 {
			break
		}
		b, turn := g.block(i)
		if old < limit && (b.cohorts[canary].waiting() || b.cohorts[control].waiting()) {
			break
		}
		g.next.Store(i + 1)
		g.close(b, turn)
		if v = g.verdict(); v.trip {
			return v
		}
	}
	return g.verdict()
}

func (c *guardCounts) waiting() bool { return c.arrived.count() > c.ended.count() }

// limit is how long a block waits for its requests.
func (g *guard) limit(now time.Time) time.Duration {
	l := g.config.settle
	if limits := g.limits.Load(); limits != nil {
		l = max(l, 2*limits[control][len(latencyQuantiles)-1])
	}
	if !g.warm(canary, int64(now.Sub(g.begin)/blockLength)) {
		l = max(l, warmUpLimit)
	}
	return min(l, mostLimit)
}

// forget begins a new epoch of users, when it is time or when so many have erred
// that those who are left are not like the others.
func (g *guard) forget(now time.Time) {
	users := [2]float64{g.seen[control].count(), g.seen[canary].count()}
	epoch := g.config.userEpoch
	if users[canary] < fewUsers {
		epoch = fewUsersEpoch
	}
	spent := func(of cohort) bool { return users[of] >= fewUsers && g.failing[of] >= erredShare*users[of] }
	if now.Sub(g.people) < epoch && !spent(canary) && !spent(control) {
		return
	}
	g.people, g.failing = now, [2]float64{}
	g.erred.clear()
	g.seen[control].clear()
	g.seen[canary].clear()
}

// close takes a block's counts to the judge, and empties it.
func (g *guard) close(b *guardBlock, turn uint32) {
	var errors Stratum
	var latency [len(latencyQuantiles)]Stratum
	for of := range canary + 1 {
		c := &b.cohorts[of]
		n, x := errors.of(of)
		// Those without an answer by now are bad, and slow.
		arrived, answered, silent := c.arrived.take(turn), c.answered.take(turn), c.silent.take(turn)
		unanswered := max(arrived-answered-silent, 0)
		*n = max(arrived-c.gone.take(turn), 0)
		c.ended.take(turn)
		*x = unanswered
		if of == canary && unanswered > 0 {
			g.affected += min(int(unanswered), bits.OnesCount64(b.crowd.Load()))
		}
		known := c.slowKnown.take(turn)
		var slow [len(latencyQuantiles)]int64
		for q := range slow {
			slow[q] = c.slow[q].take(turn)
		}
		if known > 0 || unanswered > 0 && g.limits.Load() != nil && g.warm(of, g.next.Load()) {
			known += unanswered
			for q := range latency {
				n, x := latency[q].of(of)
				*n, *x = known, slow[q]+unanswered
			}
		}
	}
	b.mu.Lock()
	failed := b.failed
	b.failed, b.turn = nil, turn+1
	b.mu.Unlock()
	b.crowd.Store(0)
	for _, f := range failed {
		n, x := errors.of(f.of)
		if !g.erred.add(f.user) {
			*n-- // one user's many errors are one
			continue
		}
		*x++
		g.failing[f.of]++
		if f.of == canary && g.victims.add(f.user) {
			g.affected++
		}
	}
	g.pour(errors, latency)
}

// pour adds a block to what waits, and has judged what has requests of both
// cohorts: that depends on exposures alone.
func (g *guard) pour(errors Stratum, latency [len(latencyQuantiles)]Stratum) {
	g.judged.plus(errors)
	if len(g.open.errors) == 0 {
		g.open.errors = make([]Stratum, 1)
	}
	var b settledBlock
	one := [1]Stratum{}
	if g.open.errors[0].plus(errors); g.open.errors[0].both() {
		one[0], g.open.errors[0] = g.open.errors[0], Stratum{}
		b.errors = one[:]
	}
	for q := range latency {
		if g.open.latency[q].plus(latency[q]); g.open.latency[q].both() {
			b.latency[q], g.open.latency[q] = g.open.latency[q], Stratum{}
		}
	}
	g.judge.add(&b)
}

// verdict weighs what has been judged.
func (g *guard) verdict() verdict {
	v := verdict{evidence: g.judge.evidence()}
	weight := v.served
	if g.config.anyTraffic {
		weight = v.whole
	}
	v.trip = weight >= g.judge.tripAt && (v.leading != TestErrors || g.affected >= g.config.minUsers)
	return v
}
