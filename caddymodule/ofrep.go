package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

func init() { caddy.RegisterModule((*OFREP)(nil)) }

// OFREP serves OpenFeature's remote evaluation protocol, version 0.3, to browsers
// and mobile apps: under `/ofrep/v1/`, whatever else the site serves. Clients see
// flags with `client: true`, and of them variant, value and reason; no rule, no
// other flag, nothing about other people.
//
// The context is what the site's feature_flags block reads from the request, as for
// any other request; what the client tells of itself fills in the rest. So clients
// get the decisions that the application gets.
//
// A stream of server-sent events tells clients to ask again when something has
// changed for them.
type OFREP struct {
	// CORS lists the origins, as https://app.example, whose pages may ask from
	// elsewhere; `*` is any, without their cookies. Default: only the site's own.
	CORS origins `json:"cors,omitempty"`

	// Accept lists the attributes that clients may tell of themselves. Default:
	// all that the site does not know better.
	Accept []string `json:"accept,omitempty"`

	// RateLimit is for each client address. Default: none.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// MaxBody is the largest request in bytes. Default: 65536.
	MaxBody int64 `json:"max_body,omitempty"`

	// Streams is how many event streams may be open at once, a tenth of them by
	// one client address. Default: 10000. Negative: none is offered.
	Streams int `json:"streams,omitempty"`

	// Keys are secrets of 16 bytes or more that sign the streams' addresses, the
	// first one; placeholders are resolved when the config is loaded. Default: a
	// key in Caddy's storage, which instances may share.
	Keys []string `json:"keys,omitempty"`

	app     *App
	limiter *limiter
	accepts map[string]bool // nil: all
	signer  *signer         // of the config's keys; nil: the shared one

	addressed atomic.Pointer[streamAddress] // the last one
	streams   streamCount
	ending    context.Context // of the server: done when it shuts down
}

// The protocol's paths.
const (
	ofrepPrefix = "/ofrep/v1/"
	ofrepFlags  = "/ofrep/v1/evaluate/flags"
	ofrepEvents = "/ofrep/v1/events"
)

const ofrepMethods = "POST, GET, OPTIONS"

const (
	defaultMaxBody = 64 << 10
	defaultStreams = 10_000
)

// CaddyModule returns the module's information.
func (*OFREP) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.feature_flags_ofrep", New: func() caddy.Module { return new(OFREP) }}
}

// Provision checks the options.
func (o *OFREP) Provision(ctx caddy.Context) (err error) {
	if o.app, err = appOf(ctx); err != nil {
		return err
	}
	if err := o.CORS.check(); err != nil {
		return err
	}
	o.app.asking = append(o.app.asking, o.CORS...)
	if len(o.Accept) > 0 {
		o.accepts = map[string]bool{}
		for _, name := range o.Accept {
			if name == evaluator.TargetingKey {
				name = evaluator.UserID
			}
			o.accepts[name] = true
		}
		o.app.texts = append(o.app.texts, "accept "+strings.Join(o.Accept, " "))
	}
	if o.MaxBody == 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.MaxBody < 0 {
		return fmt.Errorf("max_body: want a size above 0, got %d", o.MaxBody)
	}
	if o.Streams == 0 {
		o.Streams = defaultStreams
	}
	if o.limiter, err = newLimiter(o.RateLimit); err != nil {
		return err
	}
	if len(o.Keys) > 0 {
		if o.signer, err = configuredSigner(ofrepPurpose, o.Keys); err != nil {
			return err
		}
		if key := o.signer.keys[0]; o.app.tagKey == nil || bytes.Compare(key, o.app.tagKey) < 0 { // sites come in any order
			o.app.tagKey = key
		}
	} else {
		o.app.streamKey.use(ctx, ofrepPurpose)
	}
	o.streams.open = map[netip.Addr]int{}
	o.ending = onShutdown(ctx)
	return nil
}

// ServeHTTP answers requests under /ofrep/v1/ and passes all others on.
func (o *OFREP) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path := r.URL.Path
	if !strings.HasPrefix(path, ofrepPrefix) {
		if strings.HasPrefix(originalURL(r).Path, ofrepPrefix) { // no path matcher of the site's authentication has seen that
			o.app.quiet.warn(time.Now(), "ofrep-path", "an OFREP request's path was rewritten before feature_flags_ofrep, which passes it on: put feature_flags_ofrep into `handle "+ofrepPrefix+"*`, and try_files and the like into a `handle` of their own")
		}
		return next.ServeHTTP(w, r)
	}
	takeOver(w, r)
	call, serve := "other", (*OFREP).serveNothing
	key, single := strings.CutPrefix(path, ofrepFlags+"/")
	switch {
	case path == ofrepFlags, single && strings.Trim(key, "/") == "":
		call, serve = "bulk", (*OFREP).serveAll
	case single:
		call, serve = "flag", (*OFREP).serveOne
	case strings.TrimSuffix(path, "/") == ofrepEvents:
		call, serve = "stream", (*OFREP).serveStream
	}
	counted := &statusWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	err := o.serve(counted, r, serve)
	ofrepRequests.WithLabelValues(call, strconv.Itoa(counted.status(err))).Inc()
	return err
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	caddyhttp.ResponseWriterWrapper
	code int
}

// WriteHeader is part of http.ResponseWriter.
func (s *statusWriter) WriteHeader(status int) {
	s.code = status
	s.ResponseWriterWrapper.WriteHeader(status)
}

func (s *statusWriter) status(err error) int {
	switch {
	case s.code != 0:
		return s.code
	case err != nil:
		return statusOf(err)
	}
	return http.StatusOK
}

// ofrepCall answers one kind of request. Its error refuses the request before
// anything is written.
type ofrepCall func(o *OFREP, w http.ResponseWriter, r *http.Request) error

func (o *OFREP) serve(w http.ResponseWriter, r *http.Request, call ofrepCall) (err error) {
	defer func() {
		if p := recover(); p != nil {
			panics.Inc()
			o.app.quiet.warn(time.Now(), "ofrep", "feature flags panicked while answering a client", zap.Any("panic", p), zap.Stack("stack"))
			err = writeOFREP(w, http.StatusInternalServerError, ofrepTrouble{"the flags cannot be evaluated; the server's log says why"})
		}
	}()
	o.CORS.allow(w.Header(), r, ofrepMethods)
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", ofrepMethods)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if wait := o.limiter.wait(clientOf(r), time.Now()); wait > 0 {
		retryAfter(w.Header(), wait)
		return writeOFREP(w, http.StatusTooManyRequests, ofrepTrouble{"too many requests of one client address"})
	}
	return call(o, w, r)
}

// ofrepTrouble is the body of answers that are about no flag.
type ofrepTrouble struct {
	Details string `json:"errorDetails"`
}

func writeOFREP(w http.ResponseWriter, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return writeJSON(w, status, append(text, '\n'))
}

func writeJSON(w http.ResponseWriter, status int, text []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "private, no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Authorization, Cookie")
	w.WriteHeader(status)
	_, _ = w.Write(text) // it fails when the client has gone
	return nil
}

// onlyMethod refuses all methods but one.
func onlyMethod(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header().Set("Allow", method+", OPTIONS")
	_ = writeOFREP(w, http.StatusMethodNotAllowed, ofrepTrouble{r.Method + " is not allowed here; use " + method})
	return false
}

func (o *OFREP) serveNothing(w http.ResponseWriter, r *http.Request) error {
	return writeOFREP(w, http.StatusNotFound, ofrepTrouble{"there is nothing here; there are POST " + ofrepFlags + " and POST " + ofrepFlags + "/{key}"})
}

// posted is a refusal of what a client sent.
type posted struct {
	status        int
	code, details string
}

// read reads the request's body and the context.
func (o *OFREP) read(w http.ResponseWriter, r *http.Request) (*request, *posted) {
	attributes, refused := o.body(w, r)
	if refused != nil {
		return nil, refused
	}
	rq, _ := ownRequest(o.app, w, r, func(c *evaluator.Context) { fillIn(c, attributes, o.accepts) })
	return rq, nil
}

// body decodes the attributes that a client tells of itself.
func (o *OFREP) body(w http.ResponseWriter, r *http.Request) (map[string]any, *posted) {
	refuse := func(code, format string, args ...any) (map[string]any, *posted) {
		return nil, &posted{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
	}
	var body map[string]any // a struct would take CONTEXT for context
	err := readObject(http.MaxBytesReader(w, r.Body, o.MaxBody), &body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case errors.As(err, &tooLarge):
		return nil, &posted{http.StatusRequestEntityTooLarge, parseError, fmt.Sprintf("the body has more than %d bytes", o.MaxBody)}
	case errors.Is(err, errCutOff):
		return refuse(parseError, "the body ends in the middle")
	case err != nil || body == nil:
		return refuse(parseError, `the body is not a JSON object as {"context": {"targetingKey": "u1"}}`)
	}
	attributes, isObject := body["context"].(map[string]any)
	if !isObject && body["context"] != nil {
		return refuse(invalidContext, "context: want an object of attributes")
	}
	if err := checkPosted(attributes); err != nil {
		return refuse(invalidContext, "%s", err)
	}
	return attributes, nil
}

// serveOne decides one flag.
func (o *OFREP) serveOne(w http.ResponseWriter, r *http.Request) error {
	if !onlyMethod(w, r, http.MethodPost) {
		return nil
	}
	key := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, ofrepFlags+"/"), "/")
	rq, refused := o.read(w, r)
	if refused != nil {
		return writeOFREP(w, refused.status, ofrepFailure{key, refused.code, refused.details})
	}
	defer rq.release()
	c := o.app.clientFlags(rq.rules, rq.arrival)
	i := rq.rules.Index(key)
	if i < 0 || c.place[i] < 0 { // whether there is one that clients may not see is not told
		return writeOFREP(w, http.StatusNotFound, ofrepFailure{key, string(evaluator.FlagNotFound), "there is no such flag for clients"})
	}
	rq.rules.monitors[i].flag.Ask(rq.arrival)
	d := rq.eval.Decide(i)
	o.app.seeUndecided(rq.arrival, d)
	answer := c.answer(int(c.place[i]), c.code(i, d))
	if answer.failed {
		return writeJSON(w, http.StatusBadRequest, answer.line)
	}
	return writeJSON(w, http.StatusOK, answer.line)
}

var bodies = sync.Pool{New: func() any { return new([]byte) }}

// serveAll decides all flags that clients may see.
func (o *OFREP) serveAll(w http.ResponseWriter, r *http.Request) error {
	if !onlyMethod(w, r, http.MethodPost) {
		return nil
	}
	rq, refused := o.read(w, r)
	if refused != nil {
		return writeOFREP(w, refused.status, ofrepFailure{"", refused.code, refused.details})
	}
	defer rq.release()
	c := o.app.clientFlags(rq.rules, rq.arrival)
	c.askedBy(rq.arrival)
	decided := c.decide(rq)
	stream := ""
	// Who is refused would ask for all flags again, and at once. Who follows an event has a stream.
	if r.URL.Query().Has("flagConfigEtag") || o.streams.hasRoom(clientOf(r), o.Streams) {
		stream = o.address(r, rq.arrival)
	}
	etag := decided.etag(stream)
	h := w.Header()
	h.Set("ETag", etag)
	if matchesETag(r.Header["If-None-Match"], etag) {
		h.Set("Cache-Control", "private, no-cache")
		h.Add("Vary", "Authorization, Cookie")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	pooled := bodies.Get().(*[]byte)
	defer bodies.Put(pooled)
	b := append((*pooled)[:0], `{"flags":[`...)
	for k, code := range decided.codes {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, c.answer(k, code).text...)
	}
	b = append(b, ']')
	if stream != "" {
		b = append(b, `,"eventStreams":[{"type":"sse","endpoint":{"requestUri":`...)
		b = strconv.AppendQuote(b, stream) // an escaped address, so that this is JSON too
		b = append(b, `},"inactivityDelaySec":120}]`...)
	}
	b = append(b, "}\n"...)
	*pooled = b
	return writeJSON(w, http.StatusOK, b)
}

// matchesETag compares as RFC 9110 §13.1.2 says: weakly, with each of a list.
func matchesETag(lines []string, etag string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == etag || part == "*" {
				return true
			}
		}
	}
	return false
}

// UnmarshalCaddyfile is in caddyfile_ofrep.go.
var (
	_ caddy.Provisioner           = (*OFREP)(nil)
	_ caddyhttp.MiddlewareHandler = (*OFREP)(nil)
	_ caddyfile.Unmarshaler       = (*OFREP)(nil)
)
