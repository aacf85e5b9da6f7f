package monitors

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Log follows requests from their arrival to their end, each by one record, in
// blocks by arrival: a block is sealed about every tenth of a second, and is over
// when all its requests have ended, or when nobody waits for them any longer. T is
// what the caller wants to know of a request. Entering and marking are safe for
// concurrent use, and wait for nothing; the rest is for one goroutine at a time.
// Make it with [NewLog].
type Log[T any] struct {
	current atomic.Pointer[LogBlock[T]]
	most    int64
	held    atomic.Int64
	queue   []*LogBlock[T] // sealed
	first   int64          // number of the first of them
}

// LogBlock holds the requests that arrived until Over.
type LogBlock[T any] struct {
	Over time.Time

	chunks  [logChunks]atomic.Pointer[[]LogRecord[T]] // of twice as many records each
	arrived atomic.Uint32                             // with logSealed
	ended   atomic.Uint32
	count   int
}

// LogRecord is one request.
type LogRecord[T any] struct {
	What T
	left atomic.Pointer[[]int]
	followed
}

// followed is what becomes of a request.
type followed struct {
	state  atomic.Uint32 // 0: not written yet, or withdrawn; recordOpen; recordEnded + class
	wait   atomic.Int64  // nanoseconds to the first byte + 1; 0: none yet
	failed atomic.Pointer[FailedRequest]
}

// seen is what has become of it by now.
func (f *followed) seen() Seen {
	state := f.state.Load()
	s := Seen{Wait: time.Duration(f.wait.Load() - 1), Failed: f.failed.Load()}
	if state >= recordEnded {
		s.Ended, s.Class = true, Class(state-recordEnded)
	} else {
		s.still = f
	}
	return s
}

// LogTicket follows one request. The zero ticket is of one that nobody follows.
// Not safe for concurrent use.
type LogTicket[T any] struct {
	block  *LogBlock[T]
	record *LogRecord[T]
}

const (
	logChunks = 12
	logChunk  = 8 // records of the first one
	logMost   = logChunk * (1<<logChunks - 1)
	logSealed = 1 << 31

	recordOpen  = 1
	recordEnded = 2
)

// NewLog makes an empty log that holds so many records at the most: requests beyond
// are not followed.
func NewLog[T any](most int) *Log[T] {
	l := &Log[T]{most: int64(most)}
	l.current.Store(new(LogBlock[T]))
	return l
}

// Enter notes a request's arrival.
func (l *Log[T]) Enter(what T) LogTicket[T] {
	if l.held.Load() >= l.most {
		return LogTicket[T]{}
	}
	for range 3 { // a block may be sealed just now
		b := l.current.Load()
		n := b.arrived.Add(1)
		switch {
		case n >= logSealed:
			continue
		case n > logMost:
			return LogTicket[T]{}
		}
		r := b.record(n-1, true)
		l.held.Add(1)
		r.What = what
		r.state.Store(recordOpen)
		return LogTicket[T]{b, r}
	}
	return LogTicket[T]{}
}

// record returns record number n; nil when there is none and none is to be made.
func (b *LogBlock[T]) record(n uint32, create bool) *LogRecord[T] {
	k := bits.Len32(n/logChunk+1) - 1
	place := &b.chunks[k]
	chunk := place.Load()
	if chunk == nil {
		if !create {
			return nil
		}
		made := make([]LogRecord[T], logChunk<<k)
		place.CompareAndSwap(nil, &made)
		chunk = place.Load()
	}
	return &(*chunk)[n-logChunk*(1<<k-1)]
}

// Follows tells whether anything comes of the ticket.
func (t *LogTicket[T]) Follows() bool { return t.record != nil }

// LeaveOut notes that whoever has number i is not to count the request.
func (t *LogTicket[T]) LeaveOut(i int) {
	if t.record == nil {
		return
	}
	left := []int{i}
	if old := t.record.left.Load(); old != nil {
		left = append(left, *old...)
	}
	t.record.left.Store(&left)
}

// FirstByte notes that the answer has begun, wait after the arrival. The first
// time counts.
func (t *LogTicket[T]) FirstByte(wait time.Duration) {
	if t.record != nil && t.record.wait.Load() == 0 {
		t.record.wait.Store(int64(max(wait, 0)) + 1)
	}
}

// End notes what the request came to, once.
func (t *LogTicket[T]) End(now time.Time, o *Outcome) {
	r := t.record
	if r == nil {
		return
	}
	if o.Answered {
		t.FirstByte(o.FirstByte)
	}
	if o.Class.IsError() && o.Error != "" {
		r.failed.Store(&FailedRequest{ID: o.RequestID, At: now.UTC(), Status: o.Status, FirstByte: o.FirstByte.Seconds(), Why: o.Error})
	}
	r.state.Store(recordEnded + uint32(o.Class))
	t.block.ended.Add(1) // the last: now the block may be judged
	t.block, t.record = nil, nil
}

// Withdraw takes the request back, as if it had not come.
func (t *LogTicket[T]) Withdraw() {
	if t.record == nil {
		return
	}
	t.record.state.Store(0)
	t.block.ended.Add(1)
	t.block, t.record = nil, nil
}

// Used tells whether anything has arrived since the last block was sealed.
func (l *Log[T]) Used() bool { return l.current.Load().arrived.Load() > 0 }

// Seal ends the block in which requests arrive: whoever comes from here on finds
// the next one.
func (l *Log[T]) Seal(now time.Time) *LogBlock[T] {
	b := l.current.Swap(new(LogBlock[T]))
	b.Over = now
	b.count = min(int(b.arrived.Or(logSealed)), logMost)
	l.queue = append(l.queue, b)
	return b
}

// Blocks returns the sealed blocks that are held, and the number of the first.
func (l *Log[T]) Blocks() (blocks []*LogBlock[T], first int64) { return l.queue, l.first }

// Drop forgets the first n blocks.
func (l *Log[T]) Drop(n int) {
	for i := range n {
		l.held.Add(-int64(l.queue[i].count))
		l.queue[i] = nil
	}
	l.queue = l.queue[n:]
	l.first += int64(n)
}

// Held is the number of records in memory, about.
func (l *Log[T]) Held() int64 { return l.held.Load() }

// Done tells whether all requests of a sealed block have ended.
func (b *LogBlock[T]) Done() bool { return int(b.ended.Load()) >= b.count }

// Len is the number of requests of a sealed block.
func (b *LogBlock[T]) Len() int { return b.count }

// Each calls f for the requests of a sealed block in the order of their arrival,
// with all that is known of them, but those that number i is to leave out. s.Canary
// and s.User are for f to fill in.
func (b *LogBlock[T]) Each(i int, f func(what *T, s Seen)) {
	for n := range uint32(b.count) {
		r := b.record(n, false)
		if r == nil {
			continue
		}
		if r.state.Load() == 0 {
			continue // just being written, by somebody who was held up, or withdrawn
		}
		if left := r.left.Load(); left != nil && slices.Contains(*left, i) {
			continue
		}
		f(&r.What, r.seen())
	}
}
