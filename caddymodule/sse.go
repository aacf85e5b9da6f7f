package caddymodule

import (
	"context"
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

// stillHere sends what nobody but proxies and clients' timers takes notice of.
func (e *eventWriter) stillHere() bool { return e.send(": still here\n\n") }

// follow has tell send each piece of news, and tick what is due every so often, until
// one of them returns false, the news end, or ctx does.
func (e *eventWriter) follow(ctx context.Context, news <-chan numbered, tell func(numbered) bool, every time.Duration, tick func() bool) {
	due := time.NewTicker(every)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			if !tick() {
				return
			}
		case n, ok := <-news:
			if !ok || !tell(n) {
				return
			}
		}
	}
}

// whileAll returns a context that is done as soon as one of several is: of the client,
// of the config, of the server.
func whileAll(ctx context.Context, others ...context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	for _, other := range others {
		stop := context.AfterFunc(other, cancel)
		context.AfterFunc(ctx, func() { stop() })
	}
	return ctx, cancel
}

// send writes lines of the stream; false tells that nobody reads them.
func (e *eventWriter) send(format string, args ...any) bool {
	_ = e.control.SetWriteDeadline(time.Now().Add(patienceWithWatcher))
	_, err := fmt.Fprintf(e.w, format, args...)
	return err == nil && e.control.Flush() == nil
}
