package state

import (
	"context"
	"sync"
)

// Pending is the way of one record to the disk. It is safe for concurrent use.
type Pending struct {
	once sync.Once
	done chan struct{}
	err  error
}

func newPending() *Pending {
	return &Pending{done: make(chan struct{})}
}

// settled returns a Pending that is done already.
func settled(err error) *Pending {
	p := newPending()
	p.settle(err)
	return p
}

// settle ends the wait. Only the first call counts: after a failed attempt the record is tried again, untold.
func (p *Pending) settle(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.done)
	})
}

// Done is closed when the record was written and synced, or when the first attempt failed.
func (p *Pending) Done() <-chan struct{} {
	return p.done
}

// Err is nil before Done is closed and when the record is on disk, otherwise why it is not. The record is in memory all
// the same, in force, and tried again until the store is closed; after that it wraps [ErrClosed].
func (p *Pending) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Wait waits for Done and returns Err, or for ctx and returns its error.
func (p *Pending) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
