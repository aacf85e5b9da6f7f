// Package state keeps what was flipped at run time: trips of the kill switch and their resets, overrides by hand,
// rollout progress, an audit of it all, and what people said. It knows no Caddy, no HTTP and no fleet.
//
// Memory is the truth: a record is in force as soon as the call that made it returns, whatever the disk does, and no
// call waits for the disk. One goroutine writes behind, many records with one fsync, and tells through a [Pending] when
// a record is safe. When the directory cannot be used the [Store] goes on in memory, is [Health].Degraded, and tries
// again until everything is on disk.
//
// On disk there are, in a directory of mode 0700, four files of mode 0600:
//
//	state.journal     trips, resets, overrides, progress: one checksummed JSON record a line, only appended to
//	audit.journal     the audit, apart from it so that trips never wait behind it
//	feedback.journal  what people said
//	state.lock        an advisory lock and who holds it
//
// A journal with many outdated records is replaced by a shorter one (a new file, synced, renamed over the old one). A
// last line that was not finished is cut off when the file is opened. Any other damage: the file is kept under the name
// PATH.damaged-TIME, every record whose checksum holds is taken over into a new one, and Health tells. Records of a kind
// that this version does not know are kept.
package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Names of the files in the directory of a store.
const (
	JournalName  = "state.journal"
	AuditName    = "audit.journal"
	FeedbackName = "feedback.journal"
	LockName     = "state.lock"
)

// ErrClosed is wrapped by the error of a [Pending] whose store was closed before the record was on disk.
var ErrClosed = errors.New("store is closed")

// Store keeps trips, overrides, progress and audit in memory and on disk. It is safe for concurrent use. Make one with
// [Open].
type Store struct {
	dir     string
	options Options

	mu       sync.Mutex // Never held over a call to the system.
	ledger   *ledger
	audit    *diary
	feedback *diary
	health   Health
	watchers map[*func(Health)]struct{}
	closed   bool

	wake   chan struct{} // Holds one when there is something to write.
	stop   chan struct{} // Closed by Close.
	ended  chan struct{} // Closed when the writer has ended; nil while there is none.
	writer *writer
}

// Open returns the store of a directory, read and ready to write: [Load] and [Store.Begin].
func Open(dir string, o Options) *Store {
	s := Load(dir, o)
	s.Begin()
	return s
}

// Load returns the store of a directory, with everything that could be read from it in force. It never fails, makes no
// file and takes no lock: what is recorded before [Store.Begin] waits in memory. dir "" is a store in memory on purpose,
// which is never degraded and whose records count as safe at once.
func Load(dir string, o Options) *Store {
	o = o.withDefaults()
	s := &Store{
		dir:      dir,
		options:  o,
		ledger:   newLedger(),
		audit:    newDiary(o.limits.auditCount, o.limits.auditBytes),
		feedback: newDiary(o.limits.feedbackCount, o.limits.feedbackBytes),
		health:   Health{Path: dir},
		watchers: map[*func(Health)]struct{}{},
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
	s.feedback.ages = true
	if dir == "" {
		s.ledger.volatile, s.audit.volatile, s.feedback.volatile = true, true, true
		return s
	}
	s.writer = newWriter(s)
	for _, sh := range s.writer.shelves {
		s.writer.peek(sh)
	}
	return s
}

// Begin takes the directory into use, once: it makes it if need be, takes the lock, reads it again and runs one
// goroutine, until [Store.Close]. It never fails: where the directory cannot be used, or another process uses it, the
// store works in memory, [Health] tells, and the directory is tried again in the background.
//
// A process must not use the same directory twice at a time: the second store would stay degraded until the first one
// is closed.
func (s *Store) Begin() {
	s.mu.Lock()
	if s.writer == nil || s.ended != nil || s.closed {
		s.mu.Unlock()
		return
	}
	s.ended = make(chan struct{})
	s.mu.Unlock()
	s.writer.work(true)
	go s.writer.run()
}

// Progress returns the progress of a flag; its Data is nil when there is none.
func (s *Store) Progress(flag string) Progress {
	return s.Flag(flag).Progress
}

// Flag returns the state of one flag, a copy.
func (s *Store) Flag(name string) FlagState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.flag(name)
}

// Flags returns the state of every flag that has any, a copy.
func (s *Store) Flags() map[string]FlagState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.flags()
}

// Audit returns audit entries, newest first.
func (s *Store) Audit(f AuditFilter) []AuditEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.audit.findAudit(f)
}

// Snapshot returns everything the store knows but the audit, a copy.
func (s *Store) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.snapshot()
}

// Close writes what waits, lets go of the directory and ends the store's goroutine. It waits [Options.CloseTimeout] at
// most, and returns an error that tells how many records are not on disk, if any. It may be called again, to wait longer.
// The store goes on in memory.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	ended, unwritten := s.ended, []*Pending(nil)
	if ended == nil {
		unwritten = s.abandon()
	}
	s.mu.Unlock()
	if ended == nil {
		settleAll(unwritten, fmt.Errorf("state directory %q: %w", s.dir, ErrClosed))
		return nil
	}
	timeout := time.NewTimer(s.options.CloseTimeout)
	defer timeout.Stop()
	select {
	case <-ended:
		return s.writer.unsaved
	case <-timeout.C:
		return fmt.Errorf("closing state directory %q: the disk has not answered for %v, %d records wait",
			s.dir, s.options.CloseTimeout, s.Health().Waiting)
	}
}

// abandon takes over all who wait for the disk. The caller must hold mu.
func (s *Store) abandon() []*Pending {
	return slices.Concat(s.ledger.abandon(), s.feedback.abandon())
}

// signal wakes the writer.
func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) path(name string) string {
	return filepath.Join(s.dir, name)
}
