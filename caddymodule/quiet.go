package caddymodule

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// quietLog logs each kind of trouble at most once in quietFor, with how often
// it has happened since: what any client can cause must not fill a disk.
type quietLog struct {
	log  *zap.Logger
	mu   sync.Mutex
	last map[string]*quietKind
}

type quietKind struct {
	at      time.Time
	skipped int
}

const quietFor = 10 * time.Second

func newQuietLog(log *zap.Logger) *quietLog {
	return &quietLog{log: log, last: map[string]*quietKind{}}
}

// warn logs the message unless its kind was logged a moment ago. Kinds come
// from a closed set.
func (q *quietLog) warn(now time.Time, kind, message string, fields ...zap.Field) {
	q.mu.Lock()
	k := q.last[kind]
	if k == nil {
		k = &quietKind{}
		q.last[kind] = k
	}
	if now.Sub(k.at) < quietFor {
		k.skipped++
		q.mu.Unlock()
		return
	}
	skipped := k.skipped
	k.at, k.skipped = now, 0
	q.mu.Unlock()
	q.log.Warn(message, append(fields, zap.Int("skipped_since_last", skipped))...)
}
