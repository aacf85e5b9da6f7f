package webhook

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

// writer is the goroutine that has the file follow the queue. Only it touches the disk.
type writer struct {
	s       *Sender
	file    *file
	suspect os.FileInfo // The file, when it made bbolt panic.
	delay   time.Duration
	next    time.Time // When to try again.
}

// run writes what comes until the sender is closed. ready is closed after the first attempt.
func (w *writer) run(ready chan struct{}) {
	// Where somebody shortens the file, reading it is a fault: a panic that can be recovered from, with this.
	debug.SetPanicOnFault(true)
	w.work(time.Now())
	close(ready)
	timer := time.NewTimer(time.Until(w.next))
	defer timer.Stop()
	for {
		select {
		case <-w.s.stopOthers:
			w.work(time.Now())
			if w.file != nil {
				w.file.close(nil)
			}
			return
		case <-w.s.wakeWriter:
			if w.file == nil {
				continue // Its time comes with the timer.
			}
		case <-timer.C:
		}
		w.work(time.Now())
		timer.Reset(time.Until(w.next))
	}
}

// work brings the file up to date.
func (w *writer) work(now time.Time) {
	err := w.write(now)
	if err == nil {
		w.delay, w.next = 0, now.Add(diskMax)
	} else {
		w.delay = min(max(2*w.delay, diskMin), diskMax)
		if errors.Is(err, ErrLocked) {
			w.delay = diskMin
		}
		w.next = now.Add(w.delay)
		err = fmt.Errorf("webhook queue %q: %w", w.s.path, err)
	}
	w.s.mu.Lock()
	// Once, not at each attempt; Health has the latest one.
	tell := err != nil && (w.s.health == nil || w.delay == diskMin && w.s.health.Error() != err.Error())
	w.s.health = err
	w.s.mu.Unlock()
	if tell {
		w.s.options.Told(Report{Err: err})
	}
}

func (w *writer) write(now time.Time) error {
	if w.file != nil && !w.file.same(w.s.path) {
		w.file.close(nil)
		w.file = nil
	}
	if w.file == nil {
		if err := w.open(now); err != nil {
			return err
		}
	}
	for {
		w.s.mu.Lock()
		c := w.s.queue.pending()
		w.s.mu.Unlock()
		if len(c.puts) == 0 && len(c.deletes) == 0 {
			return nil
		}
		keys, err := w.file.commit(c)
		if err != nil {
			if errors.Is(err, errDamaged) {
				w.suspect = w.file.info
			}
			w.file.close(err)
			w.file = nil
			w.s.mu.Lock()
			// What is in the file is known when it has been read again.
			for _, it := range w.s.queue.items {
				it.durable = false
			}
			w.s.mu.Unlock()
			return fmt.Errorf("writing: %w", err)
		}
		w.s.mu.Lock()
		w.s.queue.confirm(c, keys)
		w.s.stir()
		w.s.mu.Unlock()
	}
}

// open opens the file and takes over what is in it.
func (w *writer) open(now time.Time) error {
	f, found, aside, err := openFile(w.s.path, w.s.options.maxFile(), w.suspect, now)
	if aside != "" {
		w.suspect = nil
		w.s.options.Told(Report{Err: fmt.Errorf("webhook queue %q: was damaged, and is kept as %q: %d events could be read", w.s.path, aside, len(found))})
	}
	if err != nil {
		// What was salvaged from a file that is aside has no other place.
		if len(found) > 0 {
			w.adopt(found, now)
		}
		return fmt.Errorf("opening: %w", err)
	}
	w.file, w.suspect = f, nil
	w.adopt(found, now)
	return nil
}

func (w *writer) adopt(found []stored, now time.Time) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.queue.reconcile(found, now)
	for _, l := range w.s.lanes {
		signal(l.wake)
	}
	w.s.stir()
}
