package state

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// book is what stands on a shelf, in memory: the ledger or a diary. Store.mu guards it.
type book interface {
	load(s scanned) (changed bool)
	expire(limit time.Time)
	all() []*entry
	queue() *backlog
}

// shelf is one journal and the book whose records belong in it.
type shelf struct {
	journal *journal
	book    book
	err     error // Why it cannot be written now.

	outdated      int // Bounds of what may lie in the journal beside the book.
	outdatedBytes int64
	compactAfter  time.Time   // After a compaction that failed.
	peeked        os.FileInfo // What was read without the lock.
}

// compactionPause is the time between two attempts of a compaction that failed.
const compactionPause = time.Minute

// writer is the goroutine behind a store. Only it touches the disk, after the first attempt, which Open makes.
type writer struct {
	s       *Store
	lock    dirLock
	shelves []*shelf // The one with the trips first.
	delay   time.Duration
	next    time.Time // When to try again, or to look whether the files are still there.
	news    bool      // Something was learnt from the disk or set aside.
	opened  bool      // The first attempt is over.
	unsaved error     // What Close tells; set before Store.ended is closed.
}

func newWriter(s *Store) *writer {
	limits, files := s.options.limits, s.options.files
	return &writer{
		s:    s,
		lock: dirLock{path: s.path(LockName)},
		shelves: []*shelf{
			{
				journal: &journal{path: s.path(JournalName), files: files}, book: s.ledger,
				outdated: limits.outdated, outdatedBytes: limits.outdatedBytes,
			},
			{
				journal: &journal{path: s.path(AuditName), files: files}, book: s.audit,
				outdated: limits.auditOutdated, outdatedBytes: limits.auditOutdatedBytes,
			},
			{
				journal: &journal{path: s.path(FeedbackName), files: files}, book: s.feedback,
				outdated: limits.auditOutdated, outdatedBytes: limits.auditOutdatedBytes,
			},
		},
	}
}

// run writes what comes until the store is closed.
func (w *writer) run() {
	defer close(w.s.ended)
	timer := time.NewTimer(time.Until(w.next))
	defer timer.Stop()
	for {
		select {
		case <-w.s.stop:
			w.finish()
			return
		case <-w.s.wake:
			w.work(false)
		case <-timer.C:
			w.work(true)
		}
		timer.Reset(time.Until(w.next))
	}
}

// work writes everything that waits. A shelf that could not be written is left alone until its time has come, which
// retry tells.
func (w *writer) work(retry bool) {
	now := time.Now()
	broken := w.err() != nil
	for _, sh := range w.shelves {
		if sh.err == nil || retry {
			sh.err = w.write(sh, now)
		}
	}
	switch err := w.err(); {
	case err == nil:
		w.delay = 0
		w.next = now.Add(w.s.options.RetryMax)
	case retry || !broken: // Records that come while it is broken do not put the next attempt off.
		w.delay = min(max(2*w.delay, w.s.options.RetryMin), w.s.options.RetryMax)
		if errors.Is(err, ErrLocked) {
			w.delay = w.s.options.RetryMin
		}
		w.next = now.Add(w.delay)
	}
	w.report(now)
}

// report makes known how the work went, Health first: who hears that a record was not written finds out why there.
func (w *writer) report(now time.Time) {
	s := w.s
	s.mu.Lock()
	waiters := make([][]*Pending, len(w.shelves)) // Of those shelves that cannot be written.
	for i, sh := range w.shelves {
		q := sh.book.queue()
		if q.broken = sh.err; sh.err != nil {
			waiters[i] = q.abandon()
		}
	}
	tell := s.settleHealth(now, w.err(), w.news && w.opened)
	s.mu.Unlock()
	w.news, w.opened = false, true
	tell()
	for i, sh := range w.shelves {
		settleAll(waiters[i], sh.err)
	}
}

// err is why not everything can be written.
func (w *writer) err() error {
	for _, sh := range w.shelves {
		if sh.err != nil {
			return sh.err
		}
	}
	return nil
}

// finish makes a last attempt and lets go of the directory.
func (w *writer) finish() {
	w.work(true)
	for _, sh := range w.shelves {
		sh.journal.close()
	}
	w.lock.release()
	s := w.s
	s.mu.Lock()
	waiters, waiting := s.abandon(), s.healthNow().Waiting
	s.mu.Unlock()
	closed := fmt.Errorf("state directory %q: %w", s.dir, ErrClosed)
	settleAll(waiters, closed)
	if waiting > 0 {
		w.unsaved = fmt.Errorf("closing: %d records are not on disk: %w", waiting, cmp.Or(w.err(), closed))
	}
}

// write brings the journal of a shelf up to date with its book.
func (w *writer) write(sh *shelf, now time.Time) error {
	err := w.open(sh, now)
	for err == nil {
		w.s.mu.Lock()
		batch := sh.book.queue().batch(w.s.options.limits.batch)
		w.s.mu.Unlock()
		if len(batch) == 0 {
			break
		}
		if err = sh.journal.append(linesOf(batch)); err == nil {
			w.confirm(sh, batch)
		}
	}
	if err == nil {
		err = w.compact(sh, now)
	}
	if err != nil {
		sh.journal.close()
		return fmt.Errorf("state directory %q: %w", w.s.dir, err)
	}
	return nil
}

// confirm marks records as durable and tells who waits for them.
func (w *writer) confirm(sh *shelf, entries []*entry) {
	var waiters []*Pending
	w.s.mu.Lock()
	for _, e := range entries {
		waiters = append(waiters, sh.book.queue().confirm(e)...)
	}
	w.s.mu.Unlock()
	settleAll(waiters, nil)
}

// compact replaces the journal by one without outdated records, when there are too many of them.
func (w *writer) compact(sh *shelf, now time.Time) error {
	w.s.mu.Lock()
	q := sh.book.queue()
	outdated, outdatedBytes := sh.journal.lines-q.durable, sh.journal.size-q.durableBytes
	w.s.mu.Unlock()
	if (outdated <= sh.outdated && outdatedBytes <= sh.outdatedBytes) || now.Before(sh.compactAfter) {
		return nil
	}
	err := w.rewrite(sh, now)
	w.s.mu.Lock()
	w.s.health.Compaction = err
	w.s.mu.Unlock()
	if err != nil && sh.journal.f != nil {
		// The long journal is as good as the short one. Trying again at each record would not be.
		sh.compactAfter = now.Add(compactionPause)
		return nil
	}
	return err
}

// rewrite makes a new journal of what is in the book.
func (w *writer) rewrite(sh *shelf, now time.Time) error {
	w.s.mu.Lock()
	sh.book.expire(now.Add(-w.s.options.Retention))
	entries := sh.book.all()
	w.s.mu.Unlock()
	if err := sh.journal.rewrite(linesOf(entries)); err != nil {
		return fmt.Errorf("rewriting %s: %w", filepath.Base(sh.journal.path), err)
	}
	w.confirm(sh, entries)
	return nil
}
