package caddymodule

import (
	"encoding/json"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// tell spreads news: to the log, to Caddy's events, to those who watch the
// stream, and to the metrics. It is part of listener.
func (a *App) tell(n news) {
	defer a.survive("telling news")
	eventsTold.WithLabelValues(n.Event).Inc()
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
	a.stream.publish(n)
	if a.events != nil {
		a.events.Emit(a.ctx, n.Event, n.asMap())
	}
}

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

// stream hands news to whoever watches. The zero stream is ready.
type stream struct {
	mu       sync.Mutex
	watchers map[chan news]struct{}
	closed   bool
}

// watch returns a channel of news to come; it is closed when the config ends
// or the watcher is too slow. leave must be called once.
func (s *stream) watch() (ch <-chan news, leave func()) {
	c := make(chan news, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(c)
		return c, func() {}
	}
	if s.watchers == nil {
		s.watchers = map[chan news]struct{}{}
	}
	s.watchers[c] = struct{}{}
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(c)
	}
}

// drop ends one watcher. The caller must hold mu.
func (s *stream) drop(c chan news) {
	if _, ok := s.watchers[c]; ok {
		delete(s.watchers, c)
		close(c)
	}
}

func (s *stream) publish(n news) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.watchers {
		select {
		case c <- n:
		default:
			s.drop(c) // it reconnects and reads the state anew
		}
	}
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.watchers {
		s.drop(c)
	}
}
