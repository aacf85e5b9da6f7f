package state

import (
	"slices"
	"time"
)

// Health tells how a store stands with its directory.
type Health struct {
	// Path is the directory; empty for a store in memory on purpose.
	Path string
	// Degraded is true while the store cannot write: everything works, in memory only.
	Degraded bool
	// Since is when it became degraded; zero when it is not.
	Since time.Time
	// Err is why it is degraded, nil when it is not. It wraps [ErrLocked] when another process uses the directory.
	Err error
	// Waiting is the number of records in memory, audit entries and feedback among them, that are not on disk.
	Waiting int
	// Compaction is why the last attempt to shorten a journal came to nothing, nil when it went well. The journal
	// is longer than it need be, nothing else.
	Compaction error
	// SetAside are the names that damaged files were given since Open, oldest first.
	SetAside []string
	// Salvaged is the number of records that were taken over from the files set aside, Lost the number of lines in them
	// that held none.
	Salvaged, Lost int
}

// Health tells how the store stands with its directory now.
func (s *Store) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healthNow()
}

// healthNow is Health for a caller that holds mu.
func (s *Store) healthNow() Health {
	h := s.health
	h.Waiting = s.ledger.count + s.audit.count + s.feedback.count
	h.SetAside = slices.Clone(h.SetAside)
	return h
}

// OnHealth has f called whenever the store becomes degraded or healthy again, has set a damaged file aside, or found
// records in its directory that it did not know: those that another process left, which are in force by then. f is
// called from the store's goroutine, one call at a time and under no lock; while it runs nothing is written, and it must
// not call Close. It is not called for how things stand at the time of OnHealth: ask Health after it. stop ends the
// calls; one that is under way is not waited for.
func (s *Store) OnHealth(f func(Health)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[&f] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, &f)
	}
}

// settleHealth notes why the directory cannot be used now, nil for no reason. The caller must hold mu and call the
// function it returns after letting go of it.
func (s *Store) settleHealth(now time.Time, err error, news bool) (tell func()) {
	was := s.health.Degraded
	s.health.Err = err
	s.health.Degraded = err != nil
	switch {
	case err == nil:
		s.health.Since = time.Time{}
	case !was:
		s.health.Since = now
	}
	if was == s.health.Degraded && !news {
		return func() {}
	}
	h := s.healthNow()
	var watchers []func(Health)
	for f := range s.watchers {
		watchers = append(watchers, *f)
	}
	return func() {
		for _, f := range watchers {
			f(h)
		}
	}
}
