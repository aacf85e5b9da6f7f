package state

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// open makes sure that the journal of a shelf is open and is still the file that it was.
func (w *writer) open(sh *shelf, now time.Time) error {
	if sh.journal.f != nil && !sh.journal.changed() {
		return nil
	}
	err := w.prepare(now)
	if err == nil {
		err = w.attach(sh, now)
	}
	if err != nil {
		w.peek(sh)
	}
	return err
}

// prepare makes sure of the directory and its lock.
func (w *writer) prepare(now time.Time) error {
	if _, err := os.Stat(w.s.dir); err != nil {
		if err := os.MkdirAll(w.s.dir, dirPerm); err != nil {
			return err
		}
		// The parent may be nobody's business but to pass through.
		_ = fsys.SyncDir(filepath.Dir(w.s.dir))
	}
	return w.lock.hold(now, w.s.options.Instance)
}

// attach reads the journal, puts what it holds together with what is in memory, and has the rest written. Trips that
// were recorded while the directory could not be used come to the disk in this way, and those that another process
// recorded meanwhile into memory.
func (w *writer) attach(sh *shelf, now time.Time) error {
	found, aside, err := sh.journal.load(now)
	w.learn(sh, found, now)
	if err != nil {
		w.note(aside, 0, 0)
		return err
	}
	if !found.damaged {
		w.note(aside, 0, 0) // What stood in its place.
		return nil
	}
	if aside, err = sh.journal.keepAside(now); err != nil {
		return err
	}
	w.note(aside, len(found.lines), found.lost)
	return w.rewrite(sh, now)
}

// learn puts what a journal holds together with what is in memory.
func (w *writer) learn(sh *shelf, found scan, now time.Time) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	sh.book.queue().restart(sh.book.all())
	for _, line := range found.lines {
		if sh.book.load(line) {
			w.news = true
		}
	}
	sh.book.expire(now.Add(-w.s.options.Retention))
}

// note keeps for Health what was set aside; a name that is known already, of an attempt that came no further, is not
// counted again.
func (w *writer) note(aside string, salvaged, lost int) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	h := &w.s.health
	if aside == "" || slices.Contains(h.SetAside, aside) {
		return
	}
	h.SetAside = append(h.SetAside, aside)
	h.Salvaged += salvaged
	h.Lost += lost
	w.news = true
}

// peek reads a journal that is not this store's to write, unless it is as it was: what another process recorded, or what
// stands in a directory that cannot be written, is in force here too.
func (w *writer) peek(sh *shelf) {
	st, err := os.Stat(sh.journal.path)
	if err != nil || (sh.peeked != nil && os.SameFile(st, sh.peeked) &&
		st.Size() == sh.peeked.Size() && st.ModTime().Equal(sh.peeked.ModTime())) {
		return
	}
	found, err := sh.journal.peek()
	if err != nil {
		return // The error that counts is why the directory cannot be used.
	}
	sh.peeked = st
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for _, line := range found.lines {
		if sh.book.load(line) {
			w.news = true
		}
	}
}
