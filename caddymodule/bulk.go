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
// blocks of records. Safe for concurrent use but for tick.
type bulkLog struct {
	*monitors.Log[told]
	site       *siteRules
	registered atomic.Bool // somebody ticks it

	// Only tick touches what follows.
	next []int64   // by logged flag: the block that it is given next
	idle time.Time // since when nothing has come
	seen []monitors.Seen
}

// told is a request, and what its application was told.
type told struct {
	set  *decisionSet
	user uint64
}

type bulkTicket = monitors.LogTicket[told]

// bulkIdle is how long nobody must have come for a log to be forgotten.
const bulkIdle = time.Minute

// What a log holds at the most, also where requests hang and none has its decisions
// in common with another.
const (
	logRecords  = 1 << 18
	logBytes    = 64 << 20
	recordBytes = 128
)

func newBulkLog(s *siteRules) *bulkLog {
	return &bulkLog{Log: monitors.NewLog[told](min(logRecords, logBytes/(recordBytes+2*len(s.told)))), site: s, next: make([]int64, len(s.logged))}
}

// enter notes a request's arrival.
func (l *bulkLog) enter(e *engine, set *decisionSet, user uint64) bulkTicket {
	if !l.registered.Load() && l.registered.CompareAndSwap(false, true) {
		e.addLog(l)
	}
	return l.Enter(told{set, user})
}

// tick gives guards the blocks that are over for them. It returns false when the
// log has nothing and nobody has come for a while.
func (l *bulkLog) tick(now time.Time) bool {
	if l.Used() {
		l.Seal(now)
		l.idle = now
	}
	blocks, first := l.Blocks()
	if len(blocks) == 0 {
		return l.idle.IsZero() || now.Sub(l.idle) < bulkIdle
	}
	least := first + int64(len(blocks))
	for k, f := range l.site.logged {
		l.give(now, &l.next[k], f)
		least = min(least, l.next[k])
	}
	l.Drop(int(least - first))
	return true
}

// give gives a flag's guard what is over for it.
func (l *bulkLog) give(now time.Time, next *int64, f loggedFlag) {
	defer survive("judging requests in bulk")
	m := &l.site.rules.monitors[f.flag]
	limit := time.Duration(-1)
	blocks, first := l.Blocks()
	for *next < first+int64(len(blocks)) {
		b := blocks[*next-first]
		if !b.Done() {
			if limit < 0 {
				limit = monitors.WarmUpLimit
				if g := m.flag.Guard(); g != nil {
					limit = g.Limit(now)
				}
			}
			if now.Sub(b.Over) < limit {
				return
			}
		}
		*next++ // first: what panics is not judged again and again
		if seen := l.read(b, f); len(seen) > 0 {
			m.flag.Absorb(now, m.epoch.Load(), b.Over, seen)
		}
	}
}

// read returns what a flag saw of a block's requests.
func (l *bulkLog) read(b *monitors.LogBlock[told], f loggedFlag) []monitors.Seen {
	l.seen = l.seen[:0]
	b.Each(f.flag, func(what *told, s monitors.Seen) {
		code := int(what.set.codes[f.place])
		if code%len(evaluator.Reasons) != splitIndex || what.set.apart != nil && what.set.apart[f.place] {
			return
		}
		s.Canary, s.User = code/len(evaluator.Reasons) != f.off, what.user
		l.seen = append(l.seen, s)
	})
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
