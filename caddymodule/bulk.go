package caddymodule

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// bulkLog follows the requests of a site that many flags were told of at once. A
// request is one record, however many guards look at it: they are given whole
// blocks of records, a tenth of a second of arrivals each, when their requests have
// ended or have been waited for long enough. Safe for concurrent use but for tick.
type bulkLog struct {
	site       *siteRules
	current    atomic.Pointer[bulkBlock]
	held       atomic.Int64 // records in memory
	registered atomic.Bool  // somebody ticks it

	// Only tick touches what follows.
	queue []*bulkBlock // sealed
	first int64        // number of the first of them
	next  []int64      // by logged flag: the block that it is given next
	idle  time.Time    // since when nothing has come
	seen  []monitors.Seen
}

// bulkBlock holds the records of the requests that arrived in it.
type bulkBlock struct {
	chunks  [bulkChunks]atomic.Pointer[[bulkChunk]bulkRecord]
	arrived atomic.Uint32 // with bulkSealed
	ended   atomic.Uint32
	over    time.Time
	count   int
}

// bulkRecord is one request.
type bulkRecord struct {
	state  atomic.Uint32 // 0: not written yet; recordOpen; recordEnded + class
	wait   atomic.Int64  // nanoseconds to the first byte + 1; 0: none yet
	set    *decisionSet
	user   uint64
	failed atomic.Pointer[monitors.FailedRequest]
	taken  atomic.Pointer[[]int] // flags that are followed one by one all the same
}

const (
	bulkChunk  = 64
	bulkChunks = 128 // 8,192 requests in a tenth of a second
	bulkSealed = 1 << 31
	mostHeld   = 1 << 18 // records of one site; beyond, requests do not count

	recordOpen  = 1
	recordEnded = 2

	bulkIdle = time.Minute
)

// bulkTicket follows one request. The zero ticket is of one that does not count.
type bulkTicket struct {
	block  *bulkBlock
	record *bulkRecord
}

func newBulkLog(s *siteRules) *bulkLog {
	l := &bulkLog{site: s, next: make([]int64, len(s.logged))}
	l.current.Store(new(bulkBlock))
	return l
}

// enter notes a request's arrival.
func (l *bulkLog) enter(e *engine, set *decisionSet, user uint64) bulkTicket {
	if !l.registered.Load() && l.registered.CompareAndSwap(false, true) {
		e.addLog(l)
	}
	if l.held.Load() >= mostHeld {
		return bulkTicket{}
	}
	for range 3 { // a block may be sealed just now
		b := l.current.Load()
		n := b.arrived.Add(1)
		if n >= bulkSealed {
			continue
		}
		if n > bulkChunk*bulkChunks {
			b.ended.Add(1)
			return bulkTicket{}
		}
		place := &b.chunks[(n-1)/bulkChunk]
		chunk := place.Load()
		if chunk == nil {
			place.CompareAndSwap(nil, new([bulkChunk]bulkRecord))
			chunk = place.Load()
		}
		l.held.Add(1)
		r := &chunk[(n-1)%bulkChunk]
		r.set, r.user = set, user
		r.state.Store(recordOpen)
		return bulkTicket{b, r}
	}
	return bulkTicket{}
}

// firstByte notes that the answer has begun.
func (t bulkTicket) firstByte(wait time.Duration) {
	if t.record != nil {
		t.record.wait.CompareAndSwap(0, int64(max(wait, 0))+1)
	}
}

// end notes what the request came to, once.
func (t *bulkTicket) end(now time.Time, o *monitors.Outcome) {
	r := t.record
	if r == nil {
		return
	}
	if o.Answered {
		t.firstByte(o.FirstByte)
	}
	if o.Class.IsError() {
		r.failed.Store(&monitors.FailedRequest{ID: o.RequestID, At: now.UTC(), Status: o.Status, FirstByte: o.FirstByte.Seconds(), Why: o.Error})
	}
	r.state.Store(recordEnded + uint32(o.Class))
	t.block.ended.Add(1) // the last: now the block may be judged
	t.record = nil
}

// take leaves flag number i out: it is followed on its own.
func (t bulkTicket) take(i int) {
	if t.record == nil {
		return
	}
	var taken []int
	if old := t.record.taken.Load(); old != nil {
		taken = slices.Clone(*old)
	}
	taken = append(taken, i)
	t.record.taken.Store(&taken)
}

func (b *bulkBlock) done() bool { return int(b.ended.Load()) >= b.count }

// tick gives guards the blocks that are over for them. It returns false when the
// log has nothing and nobody has come for a while.
func (l *bulkLog) tick(now time.Time) bool {
	if b := l.current.Load(); b.arrived.Load() > 0 {
		l.current.Store(new(bulkBlock))
		b.over = now
		b.count = min(int(b.arrived.Or(bulkSealed)), bulkChunk*bulkChunks)
		l.queue = append(l.queue, b)
		l.idle = now
	}
	if len(l.queue) == 0 {
		return l.idle.IsZero() || now.Sub(l.idle) < bulkIdle
	}
	last := l.first + int64(len(l.queue))
	least := last
	for k, f := range l.site.logged {
		l.give(now, &l.next[k], last, f)
		least = min(least, l.next[k])
	}
	for ; l.first < least; l.first++ {
		l.held.Add(-int64(l.queue[0].count))
		l.queue[0] = nil
		l.queue = l.queue[1:]
	}
	return true
}

// give gives a flag's guard what is over for it.
func (l *bulkLog) give(now time.Time, next *int64, last int64, f loggedFlag) {
	defer survive("judging requests in bulk")
	m := &l.site.rules.monitors[f.flag]
	limit := time.Duration(0)
	for *next < last {
		b := l.queue[*next-l.first]
		if !b.done() {
			if limit == 0 {
				if limit = mostBulkWait; m.flag.Guard() != nil {
					limit = m.flag.Guard().Limit(now)
				}
			}
			if now.Sub(b.over) < limit {
				return
			}
		}
		*next++ // first: what panics is not judged again and again
		if seen := l.read(b, f); len(seen) > 0 {
			m.flag.Absorb(now, m.epoch.Load(), b.over, seen)
		}
	}
}

// mostBulkWait is how long the first block of a flag waits, as while a canary warms
// up.
const mostBulkWait = 10 * time.Second

// read returns what a flag saw of a block's requests.
func (l *bulkLog) read(b *bulkBlock, f loggedFlag) []monitors.Seen {
	l.seen = l.seen[:0]
	for n := range b.count {
		chunk := b.chunks[n/bulkChunk].Load()
		if chunk == nil {
			continue
		}
		r := &chunk[n%bulkChunk]
		state := r.state.Load()
		if state == 0 {
			continue // just being written, by somebody who was held up
		}
		code := int(r.set.codes[f.place])
		if code%len(evaluator.Reasons) != splitIndex {
			continue
		}
		if taken := r.taken.Load(); taken != nil && slices.Contains(*taken, f.flag) {
			continue
		}
		s := monitors.Seen{Canary: code/len(evaluator.Reasons) != f.off, User: r.user, Wait: time.Duration(r.wait.Load() - 1), Failed: r.failed.Load()}
		if state >= recordEnded {
			s.Ended, s.Class = true, monitors.Class(state-recordEnded)
		}
		l.seen = append(l.seen, s)
	}
	return l.seen
}

// addLog has a log ticked.
func (e *engine) addLog(l *bulkLog) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, l)
}

// tickLogs has all logs give their blocks.
func (e *engine) tickLogs(now time.Time) {
	e.mu.Lock()
	logs := slices.Clone(e.logs)
	e.mu.Unlock()
	for _, l := range logs {
		if l.tick(now) {
			continue
		}
		e.mu.Lock()
		e.logs = slices.DeleteFunc(e.logs, func(o *bulkLog) bool { return o == l })
		e.mu.Unlock()
		l.registered.Store(false)
	}
}
