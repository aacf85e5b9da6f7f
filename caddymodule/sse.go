package caddymodule

import (
	"fmt"
	"net/http"
	"time"
)

// eventWriter writes a stream of server-sent events.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// heartbeat keeps proxies and clients from taking a quiet stream for a dead one.
const heartbeat = 15 * time.Second

// patienceWithWatcher is how long a watcher may not read before it is dropped.
const patienceWithWatcher = 10 * time.Second

func newEventWriter(w http.ResponseWriter) *eventWriter {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	return &eventWriter{w, http.NewResponseController(w)}
}

// send writes lines of the stream; false tells that nobody reads them.
func (e *eventWriter) send(format string, args ...any) bool {
	_ = e.control.SetWriteDeadline(time.Now().Add(patienceWithWatcher))
	_, err := fmt.Fprintf(e.w, format, args...)
	return err == nil && e.control.Flush() == nil
}
