package monitors

import (
	"sync/atomic"
	"time"
)

// waiting counts, by the 100 ms in which they arrived, requests that have not
// begun to be answered, so that a hang is seen while it lasts: when a block is
// older than the limit, what is left in it has waited too long. It holds no
// list of requests, and the request path adds to one atomic counter.
type waiting struct {
	blocks []block // a ring; nil while nobody watches
	limit  time.Duration
	epoch  time.Time    // of block 0
	next   atomic.Int64 // the first block that is not settled; only settle moves it
}

const blockLength = 100 * time.Millisecond

// block counts arrivals in its upper and answers in its lower 31 bits, with
// one bit that says it is settled.
type block struct{ state atomic.Uint64 }

const (
	settledBit = 1 << 63
	oneArrival = 1 << 31
	answerMask = oneArrival - 1
)

// start makes a ring that reaches over the limit, with room for a late
// Tick of as much again plus ten seconds.
func (w *waiting) start(now time.Time, limit time.Duration) {
	w.blocks = make([]block, int(limit/blockLength)*2+100)
	w.limit, w.epoch = limit, now
}

// arrive notes a request and returns its block, -1 when it cannot be noted:
// nobody watches, or nobody has ticked for so long that the ring is full.
func (w *waiting) arrive(now time.Time) int64 {
	if w.blocks == nil {
		return -1
	}
	i := int64(now.Sub(w.epoch) / blockLength)
	if i < 0 || i-w.next.Load() >= int64(len(w.blocks)) {
		return -1
	}
	if w.slot(i).Add(oneArrival)&settledBit != 0 {
		return -1
	}
	return i
}

// answer notes that a request of block i has begun to be answered, or ended.
// It returns false when the block was settled before: the request has been
// counted as waiting too long already.
func (w *waiting) answer(i int64) bool {
	if i < 0 {
		return true
	}
	return i >= w.next.Load() && w.slot(i).Add(1)&settledBit == 0
}

// settle closes the blocks whose requests have all waited for longer than the
// limit and returns how many of these have no answer yet. Not safe for
// concurrent use with itself.
func (w *waiting) settle(now time.Time) (late int64) {
	if w.blocks == nil {
		return 0
	}
	half := int64(len(w.blocks) / 2)
	for i := w.next.Load(); i < int64((now.Sub(w.epoch)-w.limit)/blockLength); i++ {
		state := w.slot(i).Or(settledBit)
		w.next.Store(i + 1)
		if state&settledBit == 0 {
			late += int64(state>>31) - int64(state&answerMask)
		}
		if old := i - half; old >= 0 {
			w.slot(old).Store(0) // long settled; free for the next round
		}
	}
	return late
}

func (w *waiting) slot(i int64) *atomic.Uint64 { return &w.blocks[i%int64(len(w.blocks))].state }
