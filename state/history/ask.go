package history

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// maxReaders bounds the queries that read at the same time, so that a disk that hangs does not collect them.
const maxReaders = 8

var errNotOpen = errors.New("the file is not open")

// disk is the file as one transaction sees it.
type disk struct {
	tx *bbolt.Tx
}

// since is the time before which rows were removed; 0: none were.
func (d disk) since(r *resolution) uint32 {
	return r.since(d.tx)
}

// each calls f with the parts of the rows from the span that first is in until before end. What cannot be read is left
// out; f's error is that its part cannot be.
func (d disk) each(r *resolution, first, end uint32, f func(at uint32, entries []byte) error) {
	c := d.tx.Bucket([]byte(r.bucket)).Cursor()
	for k, v := c.Seek(keyOf(r.span(first), 0)); k != nil && bytes.Compare(k, keyOf(end, 0)) < 0; k, v = c.Next() {
		if entries, err := unseal(k, v); err == nil {
			_ = f(atOf(k), entries)
		}
	}
}

// answer is what a query got.
type answer[T any] struct {
	out     T
	applied uint64
	err     error
}

// ask calls f with what is on disk, and returns what it returned, and the minutes in memory that f did not see. It waits
// for a second at most; f may go on then, and what it returns is thrown away. ok is false when there is nothing from the
// disk: the minutes are all that are in memory then, and err is why, or nil for a history that has no disk.
func ask[T any](h *History, f func(disk) T) (out T, rest []*entry, ok bool, err error) {
	// Before the file is read: which of them are written meanwhile, their numbers tell.
	rest = h.memory.all()
	if h.path == "" {
		return out, rest, false, nil
	}
	timeout := time.NewTimer(h.options.patience)
	defer timeout.Stop()
	slow := fmt.Errorf("history %q: %w", h.path, ErrSlow)
	file := h.file.Load()
	if file == nil {
		if err := h.Health(); err != nil {
			return out, rest, false, err
		}
		return out, rest, false, fmt.Errorf("history %q: %w", h.path, errNotOpen)
	}
	select {
	case h.readers <- struct{}{}:
	case <-timeout.C:
		return out, rest, false, slow
	}
	answers := make(chan answer[T], 1)
	go func() {
		defer func() { <-h.readers }()
		var a answer[T]
		if a.err = h.options.fault("read"); a.err == nil {
			a.err = file.view(func(tx *bbolt.Tx) error {
				a.applied = applied(tx, h.memory.session)
				a.out = f(disk{tx})
				return nil
			})
		}
		answers <- a
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return out, rest, false, fmt.Errorf("reading history %q: %w", h.path, a.err)
		}
		for len(rest) > 0 && rest[0].number <= a.applied {
			rest = rest[1:]
		}
		return a.out, rest, true, nil
	case <-timeout.C:
		return out, rest, false, slow
	}
}
