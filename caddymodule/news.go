package caddymodule

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// tell is part of listener.
func (a *App) tell(n news) {
	level, message := zapcore.InfoLevel, strings.Replace(n.Event, "feature_flags.", "feature flag ", 1)
	fields := []zap.Field{}
	if n.Flag != "" {
		fields = append(fields, zap.String("flag", n.Flag))
	}
	if n.By != "" {
		fields = append(fields, zap.String("by", n.By))
	}
	if n.Reason != "" {
		fields = append(fields, zap.String("reason", n.Reason))
	}
	switch n.Event {
	case eventTripped:
		level, message = zapcore.ErrorLevel, "feature flag tripped: off for everyone until it is reset"
		if t, ok := n.Data.(tripped); ok {
			fields = append(fields, zap.String("test", t.Test), zap.Any("evidence", t.Evidence), zap.Bool("durable", t.Durable),
				zap.String("to_reset", "caddy feature-flags reset "+n.Flag))
		}
		if g := a.engine.guardOf(n.Flag); g.Retry != nil {
			message = "feature flag tripped: off for everyone until its cool-down is over, or it is reset"
			fields = append(fields, zap.Time("retry_at", *g.Retry))
		}
	case eventHeld:
		level, message = zapcore.WarnLevel, "feature flag held: the canary keeps its share"
		fields = append(fields, zap.Any("figures", n.Data), zap.String("to_see_more", "caddy feature-flags show "+n.Flag))
	case eventReloadFailed:
		level, message = zapcore.ErrorLevel, "feature flag definitions not taken: the last good ones stay in force"
	case eventReloaded:
		message = "feature flag definitions changed"
		fields = append(fields, zap.Any("data", n.Data))
	case eventDegraded:
		level, message = zapcore.ErrorLevel, "feature flags degraded: decisions and trips go on"
		fields = append(fields, zap.Any("state", n.Data))
	case eventRecovered:
		message = "feature flags recovered"
	}
	if c := a.log.Check(level, message); c != nil {
		c.Write(fields...)
	}
}

// emit is part of listener.
func (a *App) emit(n news) { a.events.Emit(a.ctx, n.Event, n.asMap()) }

// asMap gives the news to event handlers, which read it by {event.data.flag}.
func (n news) asMap() map[string]any {
	var m map[string]any
	text, err := json.Marshal(n)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return map[string]any{"flag": n.Flag, "reason": n.Reason}
	}
	delete(m, "event")
	return m
}

// queue does one thing after another, on a goroutine of its own while there is
// any: whoever adds never waits. The zero queue is ready.
type queue struct {
	mu      sync.Mutex
	waiting []func()
	busy    bool
}

// mostWaiting bounds what a queue remembers while what it does hangs.
const mostWaiting = 1000

func (q *queue) add(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == mostWaiting {
		q.waiting = q.waiting[1:]
	}
	q.waiting = append(q.waiting, f)
	if !q.busy {
		q.busy = true
		go q.run()
	}
}

func (q *queue) run() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.busy = false
			q.mu.Unlock()
			return
		}
		f := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		func() {
			defer survive("telling news")
			f()
		}()
	}
}

// drain waits until what was added is done, for limit at most.
func (q *queue) drain(limit time.Duration) {
	done := make(chan struct{})
	q.add(func() { close(done) })
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// stream hands news to whoever watches, and remembers the last ones for those
// who were away for a moment. The zero stream is ready.
type stream struct {
	mu       sync.Mutex
	watchers map[chan numbered]struct{}
	last     []numbered
	number   uint64
	life     string // tells the numbers of one engine from another's
}

type numbered struct {
	news
	number uint64
	id     string // what a watcher says it has seen
}

// remembered is how many news a watcher can catch up on.
const remembered = 256

// watch returns the id of the newest news, those since the id that was seen
// last, if any, and a channel of those to come; it is closed when the watcher is
// too slow. leave must be called once.
func (s *stream) watch(seen string) (newest string, missed []numbered, ch <-chan numbered, leave func()) {
	c := make(chan numbered, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[chan numbered]struct{}{}
	}
	s.watchers[c] = struct{}{}
	if life, number, ok := strings.Cut(seen, "-"); ok && s.life == life {
		if after, err := strconv.ParseUint(number, 10, 64); err == nil {
			for _, n := range s.last {
				if n.number > after {
					missed = append(missed, n)
				}
			}
		}
	}
	return s.id(), missed, c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(c)
	}
}

// id names the newest news. The caller must hold mu.
func (s *stream) id() string {
	if s.life == "" {
		s.life = strconv.FormatInt(time.Now().UnixNano(), 36)
	}
	return s.life + "-" + strconv.FormatUint(s.number, 10)
}

// drop ends one watcher. The caller must hold mu.
func (s *stream) drop(c chan numbered) {
	if _, ok := s.watchers[c]; ok {
		delete(s.watchers, c)
		close(c)
	}
}

func (s *stream) publish(n news) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	entry := numbered{n, s.number, s.id()}
	if len(s.last) == remembered {
		s.last = slices.Delete(s.last, 0, 1)
	}
	s.last = append(s.last, entry)
	for c := range s.watchers {
		select {
		case c <- entry:
		default:
			s.drop(c) // it reconnects and catches up
		}
	}
}
