package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// observer watches one pass of a request through the handlers behind us and
// says what it came to. It passes everything on unchanged.
type observer struct {
	caddyhttp.ResponseWriterWrapper
	rq      *request
	fails   func(status int) bool // which answers mean failure beside 5xx; nil: none
	pinned  *pinning              // what a good answer is to be marked with; nil: nothing
	attempt *attempt              // whose answer it watches; nil: none
	only    int                   // the flag it watches for; -1: all that no route watches for
	grpc    bool
	counted bool
	result  monitors.Outcome // as far as it is known
}

// WriteHeader notes the final status and the time to it; 1xx but 101 pass by.
func (o *observer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		o.begin(status)
	}
	o.ResponseWriterWrapper.WriteHeader(status)
}

// Write begins the answer when nobody has.
func (o *observer) Write(p []byte) (int, error) {
	if !o.result.Answered {
		o.begin(http.StatusOK)
	}
	return o.ResponseWriterWrapper.Write(p)
}

// ReadFrom keeps sendfile and splice working.
func (o *observer) ReadFrom(r io.Reader) (int64, error) {
	if !o.result.Answered {
		o.begin(http.StatusOK)
	}
	return o.ResponseWriterWrapper.ReadFrom(r)
}

func (o *observer) begin(status int) {
	if o.result.Answered || o.attempt != nil && o.attempt.tooLate(status) {
		return
	}
	defer o.rq.app.survive("watching an answer begin")
	o.result = monitors.Outcome{Status: status, Answered: true, FirstByte: time.Since(o.rq.arrival)}
	h := o.Header()
	o.rq.mark(h)
	if o.pinned != nil {
		o.pinned.begins(status, h)
	}
	contentType := ""
	if lines := h["Content-Type"]; len(lines) > 0 {
		contentType = lines[0]
	}
	o.grpc = strings.HasPrefix(contentType, "application/grpc")
	o.each(func(x *exposure) {
		x.matched = x.matched || matches(o.rq.rules.monitors[x.index].matches, status, h)
	})
	if status == http.StatusSwitchingProtocols || strings.HasPrefix(contentType, "text/event-stream") {
		// Such an answer lives for as long as people look at the page: what
		// counts is that it began.
		o.result.Class, o.result.Duration = classOf(status), o.result.FirstByte
		o.count(time.Now())
		return
	}
	o.each(func(x *exposure) { o.rq.verdict(x, x.FirstByte(o.result.FirstByte)) })
	if o.only < 0 {
		o.rq.ticket.FirstByte(o.result.FirstByte)
	}
}

// matches tells whether an answer is one of those that mean failure whatever
// their status says.
func matches(wanted []evaluator.ResponseMatch, status int, h http.Header) bool {
	return slices.ContainsFunc(wanted, func(m evaluator.ResponseMatch) bool {
		if len(m.Status) > 0 && !slices.Contains(m.Status, status) {
			return false
		}
		for name, value := range m.Header {
			lines := h.Values(name)
			if len(lines) == 0 || value != "*" && !slices.Contains(lines, value) {
				return false
			}
		}
		return true
	})
}

// each calls f for the exposures this observer tells the outcome of.
func (o *observer) each(f func(*exposure)) {
	for k := range o.rq.exposures {
		x := &o.rq.exposures[k]
		if o.only >= 0 && x.index == o.only || o.only < 0 && !x.routed {
			f(x)
		}
	}
}

// serve calls next and records the outcome, whatever becomes of it. Errors and
// panics pass on as they are.
func (o *observer) serve(r *http.Request, next caddyhttp.Handler) (err error) {
	returned := false
	defer func() {
		if returned {
			o.end(r, err, nil)
			return
		}
		p := recover()
		o.end(r, nil, p)
		if p != nil {
			panic(p)
		}
	}()
	err = next.ServeHTTP(o, r)
	returned = true
	return err
}

// end classifies what has happened and tells the monitors. It must never fail
// the request.
func (o *observer) end(r *http.Request, err error, panicked any) {
	defer o.rq.app.survive("recording an outcome")
	if o.counted {
		return
	}
	now := time.Now()
	o.classify(r, err, panicked)
	o.result.Duration = now.Sub(o.rq.arrival)
	if o.result.Class.IsError() {
		o.result.RequestID = o.rq.id()
	}
	o.count(now)
}

// count tells the monitors the result.
func (o *observer) count(now time.Time) {
	o.counted = true
	o.each(func(x *exposure) {
		if x.outcome == nil {
			x.outcome = &o.result
			why := ""
			switch {
			case x.matched:
				why = ", by guard.errors.match"
			case o.fails != nil && o.fails(o.result.Status):
				why = ", by `on` of its fallback"
			}
			if why != "" && !o.result.Class.IsError() && o.result.Class != monitors.ClientGone {
				bad := o.result
				bad.Class, bad.RequestID, bad.Error = monitors.FailedInside, o.rq.id(), "status "+strconv.Itoa(bad.Status)+why
				x.outcome = &bad
			}
			o.rq.verdict(x, x.End(now, x.outcome))
		}
	})
	if o.only < 0 {
		o.rq.countBulk(&o.result)
		o.rq.ticket.End(now, &o.result)
		o.rq.done = true // what is decided from here on is no exposure
	}
}

// countBulk counts the flags that are not followed one by one.
func (rq *request) countBulk(result *monitors.Outcome) {
	if rq.bulk == nil || rq.done {
		return
	}
	rq.bulkCounted = true
	for k := range rq.site.counted {
		c := &rq.site.counted[k]
		if rq.taken && rq.exposureOf(rq.site.told[c.place]) != nil {
			continue
		}
		code := rq.bulk.codes[c.place]
		cell := rq.rules.cells[c.cell+uint32(code)].Load()
		if cell == nil {
			cell = rq.rules.cell(rq.site.told[c.place], code)
		}
		cell.Count(result)
	}
}

// id names a failed request in the log and in evidence: {http.request.uuid}
// where somebody has asked for that before, else a text of our own. Asking here
// would write to the request's vars, which a dial that reverse_proxy has left
// behind may be reading: the runtime ends a process that does both at once.
func (rq *request) id() string {
	if rq.name == "" {
		if id, ok := rq.vars["uuid"].(fmt.Stringer); ok {
			rq.name = id.String()
		} else {
			rq.name = rand.Text()
		}
	}
	return rq.name
}

// verdict acts on evidence against a flag.
func (rq *request) verdict(x *exposure, evidence *monitors.Evidence) {
	if evidence != nil {
		rq.app.engine.trip(x.Flag(), evidence)
	}
}

// classify says what the request came to: see "What counts as what" in docs/api.md.
func (o *observer) classify(r *http.Request, err error, panicked any) {
	out := &o.result
	cause := context.Cause(r.Context())
	gone := func() bool {
		return errors.Is(r.Context().Err(), context.Canceled) && cause != errTooLate && cause != errAnswered
	}
	switch {
	case cause == errTooLate:
		out.Class, out.Status, out.Error = monitors.Failed, http.StatusGatewayTimeout, "no answer within `after` of its fallback"
		return
	case cause == errAnswered && out.Answered && panicked == http.ErrAbortHandler:
		// The rest of what it had to say was not waited for.
	case panicked != nil:
		switch {
		case gone():
			out.Class = goneAfter(out.Status)
		case out.Answered:
			out.Class, out.Error = monitors.Aborted, "broken off after status "+strconv.Itoa(out.Status)
		default:
			out.Class, out.Error = monitors.Failed, "panicked before answering"
		}
		return
	case err != nil && !out.Answered:
		out.Status = statusOf(err)
		if gone() {
			out.Class = monitors.ClientGone
			return
		}
	case err != nil:
		out.Class, out.Error = monitors.Aborted, "failed after status "+strconv.Itoa(out.Status)
		if gone() {
			out.Class, out.Error = goneAfter(out.Status), ""
		}
		return
	case !out.Answered && gone():
		out.Class = monitors.ClientGone
		return
	case !out.Answered:
		// Nothing was written and nothing failed: net/http answers 200 for it,
		// unless the connection was hijacked.
		out.Status = http.StatusOK
	}
	out.Class = classOf(out.Status)
	switch {
	case out.Status == 499 || out.Status == http.StatusBadGateway && gone():
		out.Class = monitors.ClientGone
	case out.Class == monitors.Failed:
		out.Error = "status " + strconv.Itoa(out.Status)
		if err != nil {
			out.Error += " (no answer from upstream)"
		}
	case o.grpc:
		if code := grpcStatus(o.Header()); serverFault(code) {
			out.Class, out.Error = monitors.FailedInside, "grpc-status "+code
		} else if code == "1" {
			out.Class = monitors.ClientGone
		}
	}
}

// goneAfter classifies a client that left in the middle of the body: many hang
// up when they have seen a 5xx, which failed all the same.
func goneAfter(status int) monitors.Class {
	if class := classOf(status); class == monitors.Failed {
		return class
	}
	return monitors.ClientGone
}

func classOf(status int) monitors.Class {
	switch {
	case status >= 500:
		return monitors.Failed
	case status >= 400:
		return monitors.Refused
	case status >= 300:
		return monitors.Redirected
	}
	return monitors.OK
}

// grpcStatus finds grpc-status among trailers, announced or not, and among the
// headers of an answer that has nothing else.
func grpcStatus(h http.Header) string {
	if code := h.Get(http.TrailerPrefix + "Grpc-Status"); code != "" {
		return code
	}
	return h.Get("Grpc-Status")
}

// serverFault tells the codes that are the server's fault, as OpenTelemetry's
// conventions for gRPC spans list them: UNKNOWN, DEADLINE_EXCEEDED,
// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
func serverFault(code string) bool {
	switch code {
	case "2", "4", "12", "13", "14", "15":
		return true
	}
	return false
}
