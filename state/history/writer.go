package history

import (
	"fmt"
	"time"
)

// retryAfter is how long after an attempt that came to nothing the disk is tried again, beside each Add.
const retryAfter = 3 * time.Second

// batch is how many minutes are written with one transaction, when more than one wait.
const batch = 16

// run writes what comes until the history is closed.
func (h *History) run(opened chan<- struct{}) {
	defer close(h.ended)
	h.attempt()
	close(opened)
	for {
		var again <-chan time.Time
		if h.failed() {
			again = time.After(retryAfter)
		}
		select {
		case <-h.wake:
			h.attempt()
			continue
		case <-again:
			h.attempt()
			continue
		case <-h.stop:
		}
		break
	}
	if n, _ := h.memory.waiting(); n > 0 {
		h.attempt()
	}
	if n, _ := h.memory.waiting(); n > 0 {
		h.mu.Lock()
		h.unsaved = fmt.Errorf("closing: %d minutes are not on disk: %w", n, h.err)
		h.mu.Unlock()
	}
	if f := h.file.Swap(nil); f != nil {
		f.close()
	}
	h.mu.Lock()
	h.err = fmt.Errorf("history %q: %w", h.path, ErrClosed)
	h.mu.Unlock()
}

// failed tells whether the last attempt came to nothing.
func (h *History) failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err != nil
}

// attempt brings the file up to date, opening it if need be, and tells those that wait how that went.
func (h *History) attempt() {
	now := time.Now()
	h.mu.Lock()
	h.busy = now
	h.mu.Unlock()
	tried := h.memory.all()
	err := h.update(now)
	if err != nil {
		err = fmt.Errorf("history %q: %w", h.path, err)
	}
	h.mu.Lock()
	h.busy, h.err = time.Time{}, err
	h.mu.Unlock()
	for _, e := range tried {
		select {
		case e.tried <- err:
		default: // Told before.
		}
	}
}

func (h *History) update(now time.Time) error {
	f := h.file.Load()
	if f != nil && f.stale(h.path) {
		h.file.Store(nil)
		f.close()
		f = nil
	}
	if f == nil {
		opening, got, err := openFile(h.path, h.options, now)
		h.mu.Lock()
		if got.aside != "" {
			h.stats.SetAside = append(h.stats.SetAside, got.aside)
		}
		if err == nil {
			h.stats.Damaged = got.damaged
		}
		h.mu.Unlock()
		if err != nil {
			return err
		}
		f = opening
		n, err := f.applied(h.memory.session)
		if err != nil {
			f.close()
			return err
		}
		h.memory.settle(n)
		h.file.Store(f)
	}
	for {
		entries := h.memory.after(h.memory.settled(), batch)
		if len(entries) == 0 {
			return nil
		}
		if err := f.write(entries, h.memory.session); err != nil {
			return err
		}
		h.memory.settle(entries[len(entries)-1].number)
	}
}
