// Package history keeps what happened to each flag's canary and control on disk: minutes for two days, five minutes for
// two weeks, hours for 90 days, in one bbolt file of bounded size. It knows no Caddy, no HTTP and no fleet.
//
// Minutes come in by [History.Add] once they are over; the minute in progress is the caller's. The five minutes and the
// hour around a minute are brought up to date in the same transaction, so that a span that is not over is as complete
// as the minutes are, and a kill at any moment loses the minute being added at most.
//
// Nothing that the disk does makes a call fail for good or wait for long. One goroutine writes. While it cannot, the
// last [MemoryMinutes] minutes are kept in memory, queries see them, the disk is tried again with each Add and every few seconds, and
// [History.Health] tells. Each minute has a number that is stored with it, so that no attempt whose end was unclear
// counts a minute twice. A damaged file is kept under the name PATH.damaged-TIME, never removed, and a new one begun,
// which gets the minutes that are still in memory.
//
// Time is what the caller says it is, and clocks are wrong at times. A minute that comes again, or after later ones,
// is added to what is there. What is past its time, or further ahead than it would be kept for, is not removed at once
// but by a few rows with each minute added (see expire): an hour with a wrong clock costs two hours of the two days of
// minutes, five hours of the two weeks and 60 hours of the 90 days at most, whatever time it shows. What was counted
// under a time that had not come yet stays there, and adds up with that time when it comes.
package history

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// MemoryMinutes is how many minutes at most wait in memory for a disk that cannot be used; the oldest give way.
const MemoryMinutes = 120

var (
	// ErrClosed is wrapped by the errors of a history that was closed.
	ErrClosed = errors.New("history is closed")
	// ErrLocked is wrapped by the errors of a history whose file another process, or another History, has in use.
	ErrLocked = errors.New("in use by another process")
	// ErrSlow is wrapped by the errors of calls that did not wait for the disk any longer.
	ErrSlow = errors.New("the disk does not answer")
)

// History is the history of all flags. Safe for concurrent use. Make one with [Open].
type History struct {
	path    string
	options Options

	memory memory
	file   atomic.Pointer[file] // As the writer has it open; nil while it has not.

	mu    sync.Mutex // Never held over a call to the system.
	err   error      // How the last attempt ended.
	busy  time.Time  // When the one under way began; zero for none.
	stats Stats
	done  bool // Close was called.

	readers chan struct{} // Bounds queries that wait for the disk at the same time.
	wake    chan struct{} // Holds one when the disk is to be tried.
	stop    chan struct{} // Closed by Close.
	ended   chan struct{} // Closed when the writer has ended.
	unsaved error         // What Close returns; set before ended is closed.
}

// Open returns the history of a file, which it makes, with its directory, where there is none. It never fails and waits
// for a second at most: where the file cannot be used, the history works in memory, and Health tells. It runs one
// goroutine until Close.
//
// path "" is a history in memory on purpose, of the last [MemoryMinutes], which is never unwell.
func Open(path string, o Options) *History {
	h := &History{
		path:    path,
		options: o.withDefaults(),
		readers: make(chan struct{}, maxReaders),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	rand.Read(h.memory.session[:])
	if path == "" {
		close(h.ended)
		return h
	}
	opened := make(chan struct{})
	go h.run(opened)
	timeout := time.NewTimer(h.options.patience)
	defer timeout.Stop()
	select {
	case <-opened:
	case <-timeout.C:
	}
	return h
}

// Add counts a minute that is over; seconds are cut off. It returns nil when the minute is safe on disk, and after a
// second at most. With an error that is not about the minute itself or [ErrClosed], the minute is in memory, is seen by
// queries, and is written when the disk works again.
//
// Rows of one flag in one call are added up. Of more than Options.MaxFlags flags the busiest are kept. Flags with names
// of more than 512 bytes are left out, of statuses the first 32 bytes are kept, and the numbers to a thousandth, within
// a million. A flag may be missing when there was nothing to count and its status is as before.
func (h *History) Add(minute time.Time, rows []Row) error {
	at, err := minuteOf(minute)
	if err != nil {
		return err
	}
	kept, dropped := tidy(rows, h.options.MaxFlags)
	h.mu.Lock()
	if h.done {
		h.mu.Unlock()
		return fmt.Errorf("adding a minute to history %q: %w", h.path, ErrClosed)
	}
	h.stats.Dropped += uint64(dropped)
	h.mu.Unlock()
	e := h.memory.add(at, pack(at, kept))
	if h.path == "" {
		return nil
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
	timeout := time.NewTimer(h.options.patience)
	defer timeout.Stop()
	select {
	case err := <-e.tried:
		return err
	case <-timeout.C:
		return fmt.Errorf("history %q: %w", h.path, ErrSlow)
	}
}

// Health is nil while everything that was added is on disk, and otherwise why not.
func (h *History) Health() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.busy.IsZero() && time.Since(h.busy) > h.options.patience {
		return fmt.Errorf("history %q: %w", h.path, ErrSlow)
	}
	if f := h.file.Load(); h.err == nil && f != nil {
		if what := f.broken.Load(); what != nil {
			return fmt.Errorf("history %q: %w", h.path, *what)
		}
	}
	return h.err
}

// Close writes what waits, lets go of the file and ends the goroutine. It waits for three seconds at most, and returns
// an error when there are minutes that are not on disk. It may be called again, to wait longer.
func (h *History) Close() error {
	h.mu.Lock()
	if !h.done {
		h.done = true
		close(h.stop)
	}
	h.mu.Unlock()
	timeout := time.NewTimer(3 * h.options.patience)
	defer timeout.Stop()
	select {
	case <-h.ended:
		return h.unsaved
	case <-timeout.C:
		return fmt.Errorf("closing history %q: %w", h.path, ErrSlow)
	}
}
