package monitors

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Guard compares one flag's canary with its control while requests pass. The
// request path writes one record into the block in which a request arrives, and
// marks when its answer begins and ends; [Guard.Tick] closes blocks in their order
// and has them judged. Only requests that the flag's split decided belong here:
// everybody else differs to begin with.
//
// Records are bounded, as a [Log]'s are; requests beyond are not compared. All
// methods are safe for concurrent use; those of a [Ticket] are not with each
// other.
type Guard struct {
	config GuardConfig
	begun  time.Time
	shown  time.Time // when it began, for people: over restarts
	epoch  atomic.Int64
	over   atomic.Bool // it has tripped
	log    *Log[guarded]

	mu sync.Mutex // orders Tick and those who read what it writes
	guardState
}

// GuardConfig is the definition's guard, with what else it needs to know.
type GuardConfig struct {
	FalseAlarm    float64 // α: bound on the chance of a false trip, in (0, 1)
	Errors        bool    // compare error rates
	TolerateRatio float64 // of the canary's error rate over the control's; 1 or more
	Tolerate      float64 // added to that; a rate from 0 to 1
	Latency       bool    // compare times to the first byte
	TolerateSlow  float64 // a fraction: 0.1 is 10 % slower
	WarmUp        time.Duration
	Traffic       Traffic
	Settle        time.Duration // a block waits for its requests at least so long
	UserEpoch     time.Duration // who erred is forgotten after it
	MinUsers      int           // of the canary, who must have met an error before a trip by errors

	// Share of the users whom the split puts into the canary, in (0, 1).
	Share float64

	// Trial is how many detectors before this one have spent their part of the
	// bound: this one takes α·2^-Trial.
	Trial int

	// Recovery makes it the guard of a canary on probation; the zero Recovery
	// does not.
	Recovery Recovery
}

// Traffic says what a drop of the canary's traffic does.
type Traffic uint8

// What a drop of the traffic does.
const (
	TrafficHold Traffic = iota
	TrafficTrip
	TrafficOff
)

// guardState is what only Tick writes.
type guardState struct {
	blocks   []blockNote // of the log's sealed blocks
	requests []Seen      // a buffer
	erred    people      // who has met an error: counts no more
	seen     [2]headcount
	visits   *visits // nil: nobody watches traffic
	unlike   unlike
	past     [2]sketch     // times to the first byte
	since    [2]time.Time  // a cohort's first request; zero: none yet
	served   float64       // requests of the canary, fading with its load
	limits   *slowLimits   // in force for new blocks; nil: not known
	patience time.Duration // with requests, by the control's past; 0: not known
	reread   time.Time     // when the past was last read
	renewed  time.Time     // when the samples of users were last renewed
	second   int64         // whole seconds since begun
	users    [2]float64    // seen, as of the last second
	forgot   time.Time     // when users were last forgotten
	failing  [2]float64    // users who erred since then, by cohort
	crowded  bool          // nobody more can be remembered as having erred

	anonymous  bool        // requests without a user were seen
	dispersion *dispersion // of errors

	late    late                           // requests that go on after their blocks
	voices  voices                         // of users, where latency is compared
	loudest [len(latencyQuantiles)]loudest // of the slow requests of the canary, since nothing spoke against it

	judge    *judge
	evidence evidence  // of the judge, after the last block
	recovery *recovery // nil: the canary is not on probation
	open     openBlock // what waits until both cohorts have requests
	sum      judgedSum
	calm     judgedSum       // sum when nothing spoke against the canary, last
	victims  victims         // of the canary, since then
	arrived  [2]int64        // requests, but those whose client left
	here     int64           // of the canary, in the epoch that is judged
	behind   int             // epochs that are over and not judged to their end
	bad      [2]int64        // of them, every one
	tripped  string          // by which test; "": not
	told     bool            // that it has
	last     []FailedRequest // of the canary, newest last
	watch    holding
}

// openBlock is what the tests have not seen yet.
type openBlock struct {
	errors     Stratum
	late       Stratum
	latency    [len(latencyQuantiles)]Stratum
	engagement Stratum
}

// guarded is what a guard knows of a request when it arrives.
type guarded struct {
	user   uint64 // a hash; 0: nobody known
	canary bool
}

// blockNote is what a guard has to know of a sealed block.
type blockNote struct {
	share float64 // of the users whom the split put into the canary
	last  bool    // of its epoch: what is open after it is not pooled with what comes
}

// judgedSum are the counts that went into the tests.
type judgedSum struct {
	at       time.Time
	errors   Stratum
	late     Stratum
	silent   [2]int64 // of the bad ones: no answer in time; of the control and of the canary
	latency  [len(latencyQuantiles)]Stratum
	arrivals [2]int64 // the same
	left     Stratum  // visits, and those without a second request
}

// WarmUpLimit is how long a guard's blocks wait at least while the canary warms up,
// as from its first request on.
const WarmUpLimit = 10 * time.Second

const (
	mostLimit     = 60 * time.Second // and never longer
	fewUsers      = 50
	fewUsersEpoch = 10 * time.Second
	erredShare    = 0.25 // of fewUsers or more of a cohort who erred: all are forgotten
	erredFew      = 0.5  // the same of fewer
	rereadEvery   = time.Minute
	renewEvery    = 10 * time.Minute
)

// guardRecords is how many requests a guard follows at once.
const guardRecords = 1 << 18

// NewGuard makes a guard that begins at now.
func NewGuard(now time.Time, c GuardConfig) *Guard {
	g := &Guard{config: c, begun: now, shown: now}
	g.judge = newJudge(judgeConfig{
		falseAlarm: c.FalseAlarm * math.Exp2(-float64(c.Trial)),
		errors:     c.Errors, ratio: c.TolerateRatio, margin: c.Tolerate,
		latency: c.Latency, traffic: c.Traffic != TrafficOff,
	})
	if c.Traffic != TrafficOff {
		g.visits = new(visits)
	}
	if c.Recovery.Test != "" {
		g.recovery = newRecovery(c.Recovery)
	}
	g.reread, g.renewed, g.forgot = now, now, now
	g.sum.at, g.calm.at = now, now
	g.evidence = g.judge.evidence()
	g.voices = newVoices()
	g.log = NewLog[guarded](guardRecords)
	return g
}

// Epoch returns the number of the epoch: requests that were decided by another
// definition or percentage belong to another one.
func (g *Guard) Epoch() int64 { return g.epoch.Load() }

// NextEpoch begins a new epoch with another share of users, in (0, 1): what
// comes from here on is never pooled with what came before. It returns the
// epoch's number.
func (g *Guard) NextEpoch(now time.Time, share float64) int64 {
	n := g.epoch.Load() + 1
	g.nextEpoch(now, n, share)
	return n
}

func (g *Guard) nextEpoch(now time.Time, n int64, share float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch.Store(n)
	g.seal(now, true)
	g.behind++
	g.config.Share = share
	g.watch.forget()
}

// SetShare corrects the share of users whom the split puts into the canary, in
// (0, 1).
func (g *Guard) SetShare(share float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config.Share = share
}

// Ticket follows one request. The zero Ticket is of one that does not count. Not
// safe for concurrent use.
type Ticket struct{ LogTicket[guarded] }

// Arrive notes a request that was decided in an epoch. user is a hash of who
// asks, the same for all requests of one user; 0 is nobody known.
func (g *Guard) Arrive(epoch int64, isCanary bool, user uint64) Ticket {
	if epoch != g.epoch.Load() || g.over.Load() {
		return Ticket{}
	}
	return Ticket{g.log.Enter(guarded{user, isCanary})}
}

// Tick closes the blocks that are over, and says what has come of it; call it
// about ten times a second. After a verdict to trip it says nothing more.
func (g *Guard) Tick(now time.Time) Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tripped != "" {
		return g.tellTrip(now)
	}
	if g.log.Used() {
		g.seal(now, false)
	}
	limit := g.limit(now)
	blocks, _ := g.log.Blocks()
	for _, b := range blocks {
		if !b.Done() && now.Sub(b.Over) < limit {
			break
		}
		note := g.blocks[0]
		g.requests = g.requests[:0]
		b.Each(0, func(what *guarded, s Seen) {
			s.Canary, s.User = what.canary, what.user
			g.requests = append(g.requests, s)
		})
		g.log.Drop(1) // first: what panics is not judged again and again
		g.blocks = g.blocks[1:]
		g.close(b.Over, note, g.requests)
		if g.trips() {
			break
		}
	}
	if second := int64(now.Sub(g.begun) / time.Second); second != g.second {
		g.second = second
		g.everySecond(now)
	}
	if g.tripped == "" && g.late.going > 0 {
		g.tickLate(now)
	}
	g.trips()
	if g.tripped != "" {
		return g.tellTrip(now)
	}
	return g.verdict(now)
}

// tellTrip says that it has tripped, once.
func (g *Guard) tellTrip(now time.Time) Verdict {
	if g.told {
		return Verdict{}
	}
	g.told = true
	g.over.Store(true)
	return g.verdict(now)
}

// seal ends the block in which requests arrive. The caller must hold mu.
func (g *Guard) seal(now time.Time, last bool) {
	g.log.Seal(now)
	g.blocks = append(g.blocks, blockNote{g.config.Share, last})
}

// latencyCounts tells whether both cohorts are warm, and somebody knows what is
// slow.
func (g *Guard) latencyCounts(now time.Time) bool {
	return g.config.Latency && g.limits != nil && g.warm(control, now) && g.warm(canary, now)
}

// warm tells whether a cohort has been served for long enough that its latency
// counts.
func (g *Guard) warm(of cohort, now time.Time) bool {
	return !g.since[of].IsZero() && now.Sub(g.since[of]) >= g.config.WarmUp
}

// Limit is how long a block waits for its requests.
func (g *Guard) Limit(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit(now)
}

func (g *Guard) limit(now time.Time) time.Duration {
	l := max(g.config.Settle, g.patience)
	if !g.warm(canary, now) {
		l = max(l, WarmUpLimit)
	}
	return min(l, mostLimit)
}

// everySecond does what need not be done more often.
func (g *Guard) everySecond(now time.Time) {
	g.users = [2]float64{g.seen[control].count(), g.seen[canary].count()}
	g.forget(now)
	if g.visits != nil {
		left := g.visits.tick(g.second)
		g.sum.left.plus(left)
		if g.open.engagement.plus(left); g.open.engagement.both() {
			g.judge.engaged(g.open.engagement)
			g.open.engagement = Stratum{}
		}
	}
	if now.Sub(g.renewed) >= renewEvery {
		g.renewed = now
		g.unlike.renew()
		g.served /= 2
	}
	if now.Sub(g.reread) >= rereadEvery {
		g.reread = now
		tolerate := g.config.TolerateSlow
		if !g.anonymous {
			tolerate = g.unlike.tolerance(tolerate, g.served)
		}
		if l := newSlowLimits(&g.past[control], tolerate); l != nil {
			g.limits = l
		}
		g.patience = patienceAfter(&g.past[control])
		g.past[control].fade()
		g.past[canary].fade()
	}
	if g.patience == 0 {
		g.patience = patienceAfter(&g.past[control])
	}
	if g.dispersion != nil && g.dispersion.due(now.Sub(g.begun)) {
		g.judge.disperse(g.dispersion.publish())
	}
	g.watch.second(g, now)
	if g.config.Traffic == TrafficTrip && g.watch.wanted > 0 && now.Sub(g.watch.dropped) >= tripDropped && g.tripped == "" {
		g.tripped = TestTraffic
	}
}

// tripDropped is for how long the canary's traffic must have dropped for a trip,
// where traffic trips.
const tripDropped = time.Minute

// forget begins a new epoch of users, when it is time or when so many have erred
// that those who are left are not like the others. Where there are few users, as
// many must have erred as are asked for, or one of them alone would count as often
// as he likes; and they count once in ten seconds at most.
func (g *Guard) forget(now time.Time) {
	few := min(g.users[control], g.users[canary]) < fewUsers
	share := erredShare
	if few {
		share = erredFew
	}
	spent := func(of cohort) bool {
		return g.failing[of] >= max(share*g.users[of], float64(g.config.MinUsers), 1)
	}
	since := now.Sub(g.forgot)
	over := since >= g.config.UserEpoch || g.crowded
	if !over && (few && since < fewUsersEpoch || !spent(canary) && !spent(control)) {
		return
	}
	g.forgot, g.failing, g.crowded = now, [2]float64{}, false
	g.erred.clear()
	if over || !few {
		g.seen[control].clear()
		g.seen[canary].clear()
	}
}

// close takes the requests of a block to the judge, in the order of their arrival.
func (g *Guard) close(over time.Time, note blockNote, requests []Seen) {
	c := blockCounts{over: over, share: note.share}
	limits := g.limits
	for i := range requests {
		of := cohortOf(requests[i].Canary)
		if g.since[of].IsZero() {
			g.since[of] = over
		}
	}
	if !g.latencyCounts(over) {
		limits = nil
	}
	for i := range requests {
		g.count(&c, &requests[i], limits)
	}
	g.watch.block(&c)
	g.late.add(0, lateBlock{over, Stratum{N1: c.errors.N1 - c.errors.X1, N0: c.errors.N0 - c.errors.X0}, c.going})
	g.pour(&c)
	if note.last {
		g.open, g.late = openBlock{}, late{}
		g.here = 0
		g.behind--
	}
}

// blockCounts is what a block comes to.
type blockCounts struct {
	over    time.Time
	share   float64
	came    [2]int64 // of the control and of the canary: all of them
	gone    [2]int64 // of them, whose client left without an answer
	firsts  [2]int64 // of a user in half an hour
	errors  Stratum
	latency [len(latencyQuantiles)]Stratum
	going   []lateRequest // those that were well and have not ended
}

func (g *Guard) arrives(of cohort) {
	if g.arrived[of]++; of == canary {
		g.here++
	}
}

// count adds a request to its block, once it is known what it came to.
func (g *Guard) count(c *blockCounts, r *Seen, limits *slowLimits) {
	of := cohortOf(r.Canary)
	c.came[of]++
	g.watch.comes(of, r.User)
	silent := !r.Ended && r.Wait < 0 // no answer by now: bad, and slow
	if r.User == 0 {
		if !g.anonymous {
			g.anonymous, g.dispersion = true, newDispersion()
			g.judge.disperse(g.dispersion.published)
		}
	} else {
		g.seen[of].add(r.User)
		if g.visits != nil && g.visits.note(of, r.User) {
			c.firsts[of]++
		}
	}
	if r.Ended && r.Class == ClientGone && r.Wait < 0 {
		c.gone[of]++
	}
	switch {
	case r.Wait >= 0:
		g.past[of].add(r.Wait)
	case silent: // it takes so long at least
		g.past[of].add(g.limit(c.over))
	}
	if r.User != 0 && g.erred.has(r.User) {
		if silent || r.Ended && r.Class.IsError() {
			g.bad[of]++
		}
		if !r.Ended || r.Class != ClientGone {
			g.arrives(of)
		}
		return // one user's many errors are one
	}
	if r.Wait >= 0 || silent {
		g.wait(c, r, limits)
	}
	if r.Ended && r.Class == ClientGone {
		return
	}
	bad := silent || r.Ended && r.Class.IsError()
	c.errors.add(of, bad)
	g.arrives(of)
	switch {
	case bad:
		if silent {
			g.sum.silent[of]++
		}
		g.failed(of, r.User, r.Failed)
	case r.still != nil:
		c.going = append(c.going, lateRequest{r.still, r.User, of})
	}
}

// wait counts how long a request waited for its first byte, or that it waited in
// vain.
func (g *Guard) wait(c *blockCounts, r *Seen, limits *slowLimits) {
	of := cohortOf(r.Canary)
	if !g.config.Latency || g.watch.failsToo || r.User != 0 && !g.voices.first(c.over, r.User) {
		return
	}
	if r.User != 0 {
		if of == canary {
			g.unlike.served(r.User)
			g.served++
		} else if r.Wait >= 0 {
			g.unlike.answered(r.User, r.Wait)
		}
	}
	if limits == nil {
		return
	}
	var above [len(latencyQuantiles)]bool
	for q, limit := range limits[of] {
		above[q] = r.Wait < 0 || r.Wait > limit
		c.latency[q].add(of, above[q])
	}
	if of == canary && r.User != 0 {
		for q := range above {
			if above[q] {
				g.loudest[q].add(r.User)
			}
		}
	}
}

// failed counts a request that has met an error.
func (g *Guard) failed(of cohort, user uint64, why *FailedRequest) {
	g.bad[of]++
	if user != 0 {
		_, full := g.erred.add(user)
		g.crowded = g.crowded || full
		g.failing[of]++
	}
	if of == canary {
		g.victims.add(user, g.sum.errors.N1)
		if why != nil {
			g.keep(*why)
		}
	}
}

// keep remembers a failed request for people.
func (g *guardState) keep(r FailedRequest) {
	if len(g.last) == keptRequests {
		copy(g.last, g.last[1:])
		g.last = g.last[:keptRequests-1]
	}
	g.last = append(g.last, r)
}

// pour adds a block to what waits, and has judged what has requests of both
// cohorts: that depends on exposures alone.
func (g *Guard) pour(c *blockCounts) {
	g.sum.at = c.over
	g.sum.errors.plus(c.errors)
	if g.dispersion != nil {
		g.dispersion.add(c.over, c.errors)
	}
	b := &g.open
	if b.errors.plus(c.errors); b.errors.both() {
		g.judge.erred(b.errors)
		g.recovery.erred(b.errors)
		b.errors = Stratum{}
	}
	for q := range c.latency {
		g.sum.latency[q].plus(c.latency[q])
		if b.latency[q].plus(c.latency[q]); b.latency[q].both() {
			g.judge.waited(q, b.latency[q])
			g.recovery.waited(q, b.latency[q])
			b.latency[q] = Stratum{}
		}
	}
	if firsts := c.firsts; firsts[canary]+firsts[control] > 0 {
		for of := range firsts {
			g.sum.arrivals[of] += firsts[of]
		}
		drop := max(leastDrop, 5*math.Sqrt(3/max(g.users[canary], 1)))
		if p := c.share; p > 0 && p < 1 && drop < 1 {
			g.judge.came(firsts[canary], firsts[control], p/(1-p), drop)
		}
	}
	g.evidence = g.judge.evidence()
	if g.weight() < 0 && g.sum.errors.N1-g.victims.after >= calmAfter {
		g.calm = g.sum
		g.victims.clear()
		g.loudest = [len(latencyQuantiles)]loudest{}
	}
}

// calmAfter is how many good requests of the canary in a row make that nothing
// speaks against it, where the evidence does not: from there on people are told
// the counts.
const calmAfter = 20

const leastDrop = 0.1 // of the canary's arrivals, always tolerated

// weight is the logarithm of the evidence on which the guard acts.
func (g *Guard) weight() float64 {
	if g.config.Traffic == TrafficTrip {
		return g.evidence.whole
	}
	return g.evidence.served
}

// LogE returns the natural logarithm of the evidence on which the guard acts, -Inf for none, and where it trips.
func (g *Guard) LogE() (logE, tripAt float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.weight(), g.judge.tripAt
}

// leading is the test that weighs most among those on which the guard acts.
func (g *Guard) leading() string {
	return g.evidence.leading(g.config.Traffic == TrafficTrip)
}

// trips tells whether the evidence is enough, and notes by which test.
func (g *Guard) trips() bool {
	if g.tripped != "" {
		return true
	}
	if g.weight() < g.judge.tripAt {
		return false
	}
	test := g.leading()
	switch test {
	case TestErrors:
		if g.victims.count() < g.config.MinUsers {
			return false
		}
	case TestLatency:
		// While the control fails nobody knows how long it would have taken: what
		// comes then is not counted either.
		if g.watch.failsToo || !g.manyAreSlow(g.judge.tripAt) {
			return false
		}
		if g.config.Errors && g.victims.count() >= g.config.MinUsers && g.hangs() {
			test = TestErrors
		}
	}
	g.tripped = test
	return true
}

// hangs tells whether most of the canary's slow requests have had no answer at
// all: people know that as an error.
func (g *Guard) hangs() bool {
	q := g.judge.slowest()
	slow := g.sum.latency[q].X1 - g.calm.latency[q].X1
	return 2*(g.sum.silent[canary]-g.calm.silent[canary]) >= slow
}
