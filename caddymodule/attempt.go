package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// attempt is the canary's try to answer a request. It holds back until the canary
// has a status, and then passes its answer on or keeps it from the client, whom
// off answers.
type attempt struct {
	caddyhttp.ResponseWriterWrapper
	fallback *Fallback
	client   context.Context // of the client's request
	body     *replayBody     // nil: there is none
	again    io.ReadCloser   // the body for off
	ctx      *canaryContext
	stop     context.CancelCauseFunc
	timer    *time.Timer // of `after`, then of the rest of the failed answer; nil: none

	mu      sync.Mutex
	settled settled
	late    bool   // the canary has not begun in time, and off will answer
	result  string // what becomes of the request where the canary has failed
	status  int    // with which it has
	dropped int64  // bytes of the failed answer
}

// settled is whose answer the client gets.
type settled int

const (
	open settled = iota
	canarys
	offs
)

// A failed answer is read to its end, so that the connection to the upstream can be
// used again, but no further than this.
const (
	mostDropped = 64 << 10
	longestDrop = time.Second
)

// Causes for which the canary's context ends although its client is there.
var (
	errTooLate  error = stopped("the canary has not begun its answer in time")
	errAnswered error = stopped("off answers")
)

// stopped is an error that handlers take for a client that left: reverse_proxy
// does not try again then, nor holds it against the upstream.
type stopped string

// Error is part of error.
func (e stopped) Error() string { return string(e) }

// Is is part of what errors.Is asks.
func (e stopped) Is(target error) bool { return target == context.Canceled }

// serve has the canary try. The client has got nothing where the result is fellBack.
func (a *attempt) serve(r *http.Request, canary caddyhttp.Handler) (err error) {
	ctx, stop := context.WithCancelCause(a.client)
	a.ctx, a.stop = &canaryContext{Context: ctx}, stop
	if after := time.Duration(a.fallback.After); after > 0 {
		a.mu.Lock() // it may fire at once
		a.timer = time.AfterFunc(after, a.expire)
		a.mu.Unlock()
	}
	*r = *r.WithContext(a.ctx)
	defer func() {
		if p := a.end(err, recover()); p != nil {
			panic(p)
		}
		switch a.result {
		case fellBack:
			err = nil
		case refusedGone:
			*r = *r.WithContext(a.client)
		}
	}()
	return canary.ServeHTTP(a, r)
}

// end settles what is still open when the canary's handlers have returned, or
// panicked. It returns with what the panic is to go on, nil where it is not.
func (a *attempt) end(err error, panicked any) any {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settled == open {
		failed := a.late
		switch {
		case panicked != nil:
			failed = failed || panicked != http.ErrAbortHandler && a.fallback.fails(http.StatusInternalServerError)
		case err != nil:
			failed = failed || a.fallback.fails(statusOf(err))
		}
		if !failed || !a.fail(statusOf(err)) {
			a.settled = canarys
		}
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.settled != offs {
		return panicked
	}
	a.stop(errAnswered)
	if panicked != nil && panicked != http.ErrAbortHandler {
		panics.Inc()
		a.fallback.app.log.Error("the canary panicked; answered by off", zap.String("flag", a.fallback.flag), zap.Any("panic", panicked), zap.Stack("stack"))
	}
	return nil
}

// expire ends the canary's time to begin its answer, as soon as the budget allows.
func (a *attempt) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settled != open {
		return
	}
	if wait := a.uploading(); wait > 0 {
		a.timer.Reset(wait)
		return
	}
	switch a.refuses() {
	case "":
		a.late = true
		a.stop(errTooLate)
	case refusedSpent:
		a.timer.Reset(askAgain/2 + rand.N(askAgain))
	}
}

// uploading tells how much longer a canary has whose client has been sending until a
// moment ago.
func (a *attempt) uploading() time.Duration {
	if a.body == nil {
		return 0
	}
	after := time.Duration(a.fallback.After)
	waiting, last := a.body.progress()
	if waiting {
		return after
	}
	return after - time.Since(last)
}

// askAgain is about how long a late canary has until the budget is asked again.
const askAgain = 200 * time.Millisecond

// decide settles whose answer the client gets, by the status with which the canary
// begins its own. It tells whether that is the canary's.
func (a *attempt) decide(status int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settled == open {
		if !a.late && !a.fallback.fails(status) || !a.fail(status) {
			a.settled = canarys
			if a.timer != nil {
				a.timer.Stop()
			}
		}
	}
	return a.settled == canarys
}

// fail notes that the canary has failed, and has off answer where that is possible.
// The caller must hold mu.
func (a *attempt) fail(status int) bool {
	a.status = status
	if a.late {
		a.status = http.StatusGatewayTimeout
	} else if a.result = a.refuses(); a.result != "" {
		return false
	}
	a.settled, a.result = offs, fellBack
	if a.client.Err() != nil {
		a.result = refusedGone // since it was late
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timer = time.AfterFunc(longestDrop, func() { a.stop(errAnswered) })
	return true
}

// refuses tells why off cannot answer; where it can, "", it takes what that needs.
// The caller must hold mu.
func (a *attempt) refuses() string {
	switch {
	case a.client.Err() != nil || a.body != nil && a.body.broken():
		return refusedGone
	case a.body != nil && !a.body.complete():
		return refusedBody
	case !a.fallback.spent.take(time.Now()):
		return refusedSpent
	}
	if a.body != nil {
		if a.again = a.body.reader(); a.again == nil {
			return refusedBody
		}
	}
	return ""
}

// tooLate tells whether off answers since the canary has not begun in time. Until
// now it had not; with status it does, if it may.
func (a *attempt) tooLate(status int) bool {
	a.decide(status)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.late
}

// WriteHeader is part of http.ResponseWriter. Early hints are for an answer that
// may not come.
func (a *attempt) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	if a.decide(status) {
		a.ResponseWriterWrapper.WriteHeader(status)
	}
}

// Write is part of http.ResponseWriter.
func (a *attempt) Write(p []byte) (int, error) {
	if a.decide(http.StatusOK) {
		return a.ResponseWriterWrapper.Write(p)
	}
	return len(p), a.drop(int64(len(p)))
}

// ReadFrom keeps sendfile and splice working.
func (a *attempt) ReadFrom(r io.Reader) (int64, error) {
	if a.decide(http.StatusOK) {
		return a.ResponseWriterWrapper.ReadFrom(r)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(r, mostDropped))
	return n, errors.Join(err, a.drop(n))
}

// drop counts what is kept from the client. The error has the handler stop.
func (a *attempt) drop(n int64) error {
	if a.dropped += n; a.dropped >= mostDropped {
		a.stop(errAnswered)
		return errAnswered
	}
	return nil
}

// FlushError is what http.ResponseController asks for.
func (a *attempt) FlushError() error {
	if a.decide(http.StatusOK) {
		return http.NewResponseController(a.ResponseWriter).Flush()
	}
	return nil
}

// Hijack is what http.ResponseController asks for.
func (a *attempt) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.decide(http.StatusSwitchingProtocols) {
		return http.NewResponseController(a.ResponseWriter).Hijack()
	}
	return nil, nil, errAnswered
}
