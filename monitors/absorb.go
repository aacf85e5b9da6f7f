package monitors

import "time"

// Seen is a request that is over, or for which nobody waits any longer, as a flag
// saw it.
type Seen struct {
	Canary bool
	Ended  bool
	Class  Class // where it has ended
	User   uint64
	Wait   time.Duration  // to the first byte; negative: there was none
	Failed *FailedRequest // of an error: for people
}

// Absorb judges a block of requests that somebody else has followed, in the order
// of their arrival, until over. They were decided in an epoch; those of another one
// do not count. It is for requests that many flags were told of at once: these
// need not be noted in each guard while they go on. The verdict comes with the
// next [Guard.Tick].
func (g *Guard) Absorb(epoch int64, over time.Time, requests []Seen) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.epoch.Load() || g.tripped != "" {
		return
	}
	b := g.blockOf(over, requests)
	if !b.used() {
		return
	}
	for of := range canary + 1 {
		b.count[of] = int64(b.cohorts[of].arrived.Load())
		if b.count[of] > 0 && g.since[of].IsZero() {
			g.since[of] = over
		}
	}
	g.close(b)
	if g.trips() {
		g.tripped = g.leading()
	}
}

// blockOf counts requests as Arrive, FirstByte and End would have.
func (g *Guard) blockOf(over time.Time, requests []Seen) *guardBlock {
	b := &guardBlock{guard: g, share: g.config.Share, over: over}
	if g.latencyCounts(over) {
		b.limits = g.limits
	}
	for i := range requests {
		r := &requests[i]
		of := cohortOf(r.Canary)
		c := &b.cohorts[of]
		if r.User != 0 {
			g.seen[of].add(r.User)
			if g.visits != nil && g.visits.note(of, r.User) {
				c.firsts.Add(1)
			}
			if g.erred.has(r.User) {
				c.others.Add(1)
				continue
			}
			if r.Canary {
				g.unlike.served(r.User)
				b.crowd.Or(1 << (r.User % 64))
			}
		} else {
			b.anonymous.Store(true)
		}
		c.arrived.Add(1)
		t := Ticket{block: b, user: r.User, of: of}
		if r.Wait >= 0 {
			t.FirstByte(r.Wait)
		}
		if r.Ended {
			o := Outcome{Class: r.Class, Answered: r.Wait >= 0, FirstByte: r.Wait}
			t.End(over, &o)
		}
		if r.Failed != nil && r.Canary {
			g.keep(*r.Failed)
		}
	}
	return b
}

// Absorb has the flag's guard judge requests that somebody else has followed; see
// [Guard.Absorb]. The guard is made if there is none.
func (f *Flag) Absorb(now time.Time, epoch int64, over time.Time, requests []Seen) {
	g := f.Guard()
	if g == nil {
		if g = f.guarding.begin(now); g == nil {
			return
		}
	}
	g.Absorb(epoch, over, requests)
}
