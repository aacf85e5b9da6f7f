package monitors

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"
)

// guarding is a flag's guard over changes of its definition and percentage. The
// guard is made when the first request comes that the split has decided: most
// flags never need one.
type guarding struct {
	guard  atomic.Pointer[Guard]
	config atomic.Pointer[GuardConfig] // nil: turned off
	epoch  atomic.Int64

	mu  sync.Mutex
	key string // of the definition and the percentage in force
}

// ConfigureGuard puts a guard's configuration in force; nil turns it off. key
// stands for the definition and the percentage: with another one a new epoch
// begins. It returns the epoch's number.
func (f *Flag) ConfigureGuard(now time.Time, c *GuardConfig, key string) int64 {
	w := &f.guarding
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.config.Load()
	switch {
	case c == nil:
		w.config.Store(nil)
		w.guard.Store(nil)
	case old == nil || !c.same(old) || c.Trial != old.Trial:
		w.config.Store(c)
		w.guard.Store(nil)
	}
	if key != w.key {
		w.key = key
		n := w.epoch.Add(1)
		w.config.Store(c)
		if g := w.guard.Load(); g != nil {
			g.nextEpoch(now, n, c.Share)
		}
	}
	return w.epoch.Load()
}

// GuardEpoch returns the epoch of a definition and percentage; −1 when others are
// in force.
func (f *Flag) GuardEpoch(key string) int64 {
	w := &f.guarding
	w.mu.Lock()
	defer w.mu.Unlock()
	if key != w.key {
		return -1
	}
	return w.epoch.Load()
}

// same tells whether evidence found under one configuration counts under the
// other: all is the same but the share, which epochs keep apart, and the trial.
func (c *GuardConfig) same(o *GuardConfig) bool {
	a, b := *c, *o
	a.Share, b.Share = 0, 0
	a.Trial, b.Trial = 0, 0
	return a == b
}

// Outdated tells whether the flag's guard was configured otherwise, so that what it
// has found does not count under c.
func (f *Flag) Outdated(c *GuardConfig) bool {
	old := f.guarding.config.Load()
	return f.Guard() != nil && old != nil && !c.same(old)
}

// Guarded tells whether canary and control are compared, or will be when somebody
// comes.
func (f *Flag) Guarded() bool { return f.guarding.config.Load() != nil }

// Guard returns the flag's guard; nil while there is none.
func (f *Flag) Guard() *Guard { return f.guarding.guard.Load() }

// ResumeGuard has the flag's guard go on, from now, with saved evidence. An error
// tells that it cannot: what was found has spent its part of the bound.
func (f *Flag) ResumeGuard(now time.Time, c *GuardConfig, saved json.RawMessage) error {
	g, err := RestoreGuard(now, *c, saved)
	if err != nil {
		return err
	}
	w := &f.guarding
	w.mu.Lock()
	defer w.mu.Unlock()
	w.config.Store(c)
	g.epoch.Store(w.epoch.Load())
	w.guard.Store(g)
	return nil
}

// forget drops the guard with its evidence: the next request begins a new one.
func (w *guarding) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.key = ""
	w.epoch.Add(1) // requests under way belong to what is over
	w.guard.Store(nil)
}

// Enter notes a request that the split has decided, in an epoch. The guard is
// made by the first one, at now.
func (f *Flag) Enter(now time.Time, epoch int64, isCanary bool, user uint64) Ticket {
	g := f.guarding.guard.Load()
	if g == nil {
		if g = f.guarding.begin(now); g == nil {
			return Ticket{}
		}
	}
	return g.Arrive(epoch, isCanary, user)
}

func (w *guarding) begin(now time.Time) *Guard {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.guard.Load(); g != nil {
		return g
	}
	c := w.config.Load()
	if c == nil {
		return nil
	}
	g := NewGuard(now, *c)
	g.epoch.Store(w.epoch.Load())
	w.guard.Store(g)
	return g
}
