package caddymodule

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// contextLog remembers some of the last contexts, for the console's preview: who
// would change. They are in memory only; whoever reads them sees a pseudonym in the
// place of the targeting key. The zero contextLog remembers nothing.
type contextLog struct {
	used atomic.Bool
	next atomic.Int64 // when one is to be remembered again, in nanoseconds

	mu   sync.Mutex
	ring []rememberedContext
	at   int
}

type rememberedContext struct {
	at  time.Time
	ctx evaluator.Context
}

const (
	mostContexts    = 1000
	betweenContexts = 20 * time.Millisecond
)

// use has contexts remembered.
func (l *contextLog) use() { l.used.Store(true) }

// see remembers a context, unless one was a moment ago.
func (l *contextLog) see(now time.Time, c *evaluator.Context) {
	if !l.used.Load() {
		return
	}
	due := l.next.Load()
	if now.UnixNano() < due || !l.next.CompareAndSwap(due, now.Add(betweenContexts).UnixNano()) {
		return
	}
	seen := rememberedContext{now, c.Clone()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < mostContexts {
		l.ring = append(l.ring, seen)
		return
	}
	l.ring[l.at] = seen
	l.at = (l.at + 1) % mostContexts
}

// all returns what is remembered, in no order.
func (l *contextLog) all() []rememberedContext {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]rememberedContext(nil), l.ring...)
}

// shownAs stands for a targeting key where people see it.
func (a *App) shownAs(key string) string {
	s := a.formKey.signer.Load()
	if key == "" || s == nil {
		return "nobody"
	}
	return s.pseudonym(key)[:8]
}
