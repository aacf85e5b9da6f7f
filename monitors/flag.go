package monitors

import (
	"sync"
	"sync/atomic"
	"time"
)

// Flag watches one flag for as long as the process lives, over reloads and
// changes of its definition. Safe for concurrent use. Make it with [NewFlag].
type Flag struct {
	name     string
	current  atomic.Pointer[watch]
	arrived  atomic.Int64 // exposures, while thresholds are in force
	guarding guarding

	mu       sync.Mutex
	cells    map[cellKey]*Cell
	traffic  *traffic // nil while nobody watches for a drop
	on       bool
	baseline Baseline
	asked    uint64    // exposures at the last sweep
	askedAt  time.Time // of the last sweep that found more
}

type cellKey struct{ variant, reason string }

// NewFlag makes the monitor of the named flag, armed at now without thresholds.
func NewFlag(name string, now time.Time) *Flag {
	f := &Flag{name: name, cells: map[cellKey]*Cell{}, baseline: Baseline{Requests: -1}}
	f.current.Store(f.newWatch(now, Thresholds{}))
	return f
}

// Name returns the flag's name.
func (f *Flag) Name() string { return f.name }

// Cell returns the counters of a variant served for a reason, making them on
// first use.
func (f *Flag) Cell(variant, reason string, canary bool) *Cell {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := cellKey{variant, reason}
	c := f.cells[key]
	if c == nil {
		c = newCell(variant, reason, canary)
		f.cells[key] = c
	}
	return c
}

// Cells returns all counters.
func (f *Flag) Cells() []*Cell {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*Cell, 0, len(f.cells))
	for _, c := range f.cells {
		out = append(out, c)
	}
	return out
}

// Cohort sums the counters of one cohort, since the process began.
func (f *Flag) Cohort(canary bool) (sum Counts) {
	for _, c := range f.Cells() {
		if c.Canary == canary {
			sum.Add(c.Snapshot())
		}
	}
	return sum
}

// counted gives both cohorts' counts.
func (f *Flag) counted() cohorts {
	of := func(canary bool) CohortEvidence {
		sum := f.Cohort(canary)
		figures := sum.Figures()
		return CohortEvidence{Requests: int64(figures.Requests), Errors: int64(figures.Errors)}
	}
	return cohorts{of(true), of(false)}
}

// Configure puts thresholds in force. Counting goes on; only [Flag.Arm] begins
// anew.
func (f *Flag) Configure(now time.Time, t Thresholds) {
	w := f.current.Load()
	old := w.limits.Load()
	if old.equal(t) {
		return
	}
	if old.Baseline != t.Baseline {
		w.slow.Store(0) // slow meant something else
		if ring := w.ring.Swap(newRing(now, t.Baseline)); ring != nil {
			w.retired.Store(&retired{ring, now.Add(ring.limit + 2*blockLength)})
		}
	}
	w.limits.Store(&t)
}

func (t Thresholds) equal(o Thresholds) bool {
	sameErrors := t.Errors == o.Errors || t.Errors != nil && o.Errors != nil && *t.Errors == *o.Errors
	return sameErrors && t.Baseline == o.Baseline && t.Slow == o.Slow && t.TrafficDrop == o.TrafficDrop
}

func (f *Flag) newWatch(now time.Time, t Thresholds) *watch {
	w := &watch{since: now, counted: f.counted, before: f.counted()}
	w.limits.Store(&t)
	w.ring.Store(newRing(now, t.Baseline))
	return w
}

// newRing returns nil where there is no limit to wait for.
func newRing(now time.Time, limit time.Duration) *waiting {
	if limit <= 0 {
		return nil
	}
	w := new(waiting)
	w.start(now, limit)
	return w
}

// Arm begins to count anew, after a reset. Requests under way count no more.
func (f *Flag) Arm(now time.Time) {
	old := f.current.Load()
	f.current.Store(f.newWatch(now, *old.limits.Load()))
	old.done.Store(true)
	f.guarding.forget()
}

// Disarm stops verdicts until the next Arm: the flag is tripped. It returns false
// when they had stopped before.
func (f *Flag) Disarm() bool { return f.current.Load().done.CompareAndSwap(false, true) }

// Disarmed tells whether that is so.
func (f *Flag) Disarmed() bool { return f.current.Load().done.Load() }

// Watched tells whether thresholds are in force: then each request must be
// followed by an [Exposure]; else counting it in its cell is enough.
func (f *Flag) Watched() bool { return f.current.Load().limits.Load().Any() }

// Exposure is one request for which the flag mattered.
type Exposure struct {
	flag  *Flag
	cell  *Cell
	watch *watch
	ring  *waiting // in which its arrival was noted; nil: in none
	block int64
	begun bool

	ticket Ticket // of the guard
	exempt bool
}

// Expose counts a request for which the flag mattered. Somebody who sees the
// answer must [Exposure.Follow] it from then on, or nothing comes of it.
func (f *Flag) Expose(cell *Cell) Exposure {
	f.arrived.Add(1)
	return Exposure{flag: f, cell: cell, watch: f.current.Load(), block: -1}
}

// Follow notes the request's arrival: from here on it counts as waiting until its
// answer begins. t is the guard's ticket, the zero one where it is not compared.
func (x *Exposure) Follow(now time.Time, t Ticket) {
	x.ticket = t
	if !x.cell.Canary {
		return
	}
	if x.ring = x.watch.ring.Load(); x.ring != nil {
		x.block = x.ring.arrive(now)
	}
}

// Exempt has the exposure speak neither for nor against the flag: it is only counted
// in its cell.
func (x *Exposure) Exempt() { x.exempt = true }

// Withdraw takes the exposure back, soon after it was followed: the request has turned
// out to be none. Nothing else may be called then.
func (x *Exposure) Withdraw() {
	x.flag.arrived.Add(-1)
	x.ticket.Withdraw()
	if x.ring != nil && !x.begun {
		x.begun = true
		x.ring.answer(x.block)
	}
}

// Flag returns the monitor the exposure belongs to.
func (x *Exposure) Flag() *Flag { return x.flag }

// FirstByte notes that the answer has begun, after wait since arrival.
// Non-nil evidence is a verdict against the flag: the caller trips it.
func (x *Exposure) FirstByte(wait time.Duration) *Evidence {
	if x.exempt {
		return nil
	}
	x.ticket.FirstByte(wait)
	return x.firstByte(wait)
}

func (x *Exposure) firstByte(wait time.Duration) *Evidence {
	if !x.cell.Canary || x.begun {
		return nil
	}
	x.begun = true
	if x.ring != nil && !x.ring.answer(x.block) {
		return nil // counted while it waited
	}
	if baseline := x.watch.limits.Load().Baseline; baseline > 0 && wait > baseline {
		return x.watch.countSlow(1)
	}
	return nil
}

// End notes what the request came to. Non-nil evidence is a verdict against
// the flag: the caller trips it.
func (x *Exposure) End(now time.Time, o *Outcome) *Evidence {
	x.cell.Count(o)
	x.ticket.End(now, o)
	if !x.cell.Canary || x.exempt {
		return nil
	}
	// A request that ended without an answer failed, or its client left: who
	// waited for longer than the baseline was served slowly all the same.
	verdict := x.firstByte(o.wait())
	if o.isError() {
		x.watch.keep(FailedRequest{ID: o.RequestID, At: now.UTC(), Status: o.Status, FirstByte: o.FirstByte.Seconds(), Why: o.Error})
		if v := x.watch.countError(); v != nil {
			verdict = v
		}
	}
	return verdict
}

// Tick does what has to wait for time to pass; call it about ten times a
// second, never twice at once. on tells whether the flag is on for anybody.
// Non-nil evidence is a verdict against the flag: the caller trips it. changed
// tells that the traffic baseline is a new one, to be kept.
func (f *Flag) Tick(now time.Time, on bool) (verdict *Evidence, changed bool) {
	w := f.current.Load()
	verdict = w.countSlow(w.settle(now))
	drop := w.limits.Load().TrafficDrop
	if drop == 0 {
		return verdict, false
	}
	f.mu.Lock()
	if f.traffic == nil {
		f.traffic = new(traffic)
	}
	whole, sum := f.traffic.advance(now, f.arrived.Load()), int64(0)
	if on != f.on {
		f.on, changed = on, true
		f.baseline = Baseline{Since: now, Requests: -1}
		if sum, full := f.traffic.lastWindow(); on && full {
			f.baseline.Requests = sum
		}
	}
	full := false
	if whole {
		sum, full = f.traffic.lastWindow()
	}
	baseline := f.baseline
	f.mu.Unlock()
	if on && full && now.Sub(baseline.Since) >= trafficWindow*time.Second &&
		dropped(baseline.Requests, sum, drop) && w.done.CompareAndSwap(false, true) {
		found := 100 * (1 - float64(sum)/float64(baseline.Requests))
		verdict = w.evidence(TestTraffic, drop, found, trafficSummary(baseline, sum, drop))
	}
	return verdict, changed
}

// settle returns how many requests have waited for longer than the baseline
// since the last call.
func (w *watch) settle(now time.Time) (late int64) {
	if ring := w.ring.Load(); ring != nil {
		late = ring.settle(now)
	}
	if old := w.retired.Load(); old != nil {
		late += old.settle(now)
		if now.After(old.until) {
			w.retired.CompareAndSwap(old, nil)
		}
	}
	return late
}

// Sweep folds counters and notes whether anybody asked for the flag; call it
// every few seconds.
func (f *Flag) Sweep(now time.Time) {
	for _, c := range f.Cells() {
		c.fold()
	}
	n := f.exposures()
	f.mu.Lock()
	defer f.mu.Unlock()
	if n != f.asked {
		f.asked, f.askedAt = n, now
	}
}

// exposures sums all cells.
func (f *Flag) exposures() (n uint64) {
	for _, c := range f.Cells() {
		s := c.Snapshot()
		n += s.Total()
	}
	return n
}

// Baseline returns the traffic before the flag was turned on, to be kept over
// restarts.
func (f *Flag) Baseline() Baseline {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.baseline
}

// Resume takes the baseline that was kept when the process ended; a flag that
// has been on since then is not turned on anew by its first Tick.
func (f *Flag) Resume(b Baseline, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.baseline, f.on = b, on
}

// Ask notes that somebody has asked for the flag without being an exposure.
func (f *Flag) Ask(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.askedAt = now
}

// LastAsked returns when a request was last found for which the flag mattered,
// to the second or a few; zero: never since the process began.
func (f *Flag) LastAsked() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.askedAt.UTC()
}

// Status is what people read about a flag's monitors.
type Status struct {
	Armed    time.Time      `json:"armed"` // since when it counts
	Canary   CohortEvidence `json:"canary"`
	Control  CohortEvidence `json:"control"`
	Baseline *Baseline      `json:"traffic_before,omitempty"`
	Test     *GuardStatus   `json:"test,omitempty"` // canary against control; absent while no request was split
}

// Status returns the counts since the flag was last armed.
func (f *Flag) Status(now time.Time) Status {
	w := f.current.Load()
	s := Status{Armed: w.since.UTC()}
	if g := f.Guard(); g != nil {
		figures := g.Status(now)
		s.Test = &figures
	}
	s.Canary, s.Control = w.cohorts()
	if !w.limits.Load().Any() { // nobody followed the requests one by one
		s.Canary.Errors = w.counted().canary.Errors - w.before.canary.Errors
	}
	if b := f.Baseline(); b.Requests >= 0 {
		s.Baseline = &b
	}
	return s
}
