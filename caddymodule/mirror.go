package caddymodule

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Mirror sends copies of requests that go to `off` to `on`, too, to see how that
// would have answered. The client's answer is `off`'s, neither changed nor delayed.
//
// Copied are GET and HEAD requests without a body. A copy has the flag told as on and
// the header X-Feature-Mirror with the flag's name, by which an application can tell
// it from a real one; clients' own headers of that name are removed. It has a time of
// its own, its answer is thrown away, and when there are as many under way as are
// allowed no more are sent. Its status, the time to its first byte and perhaps its
// body are compared with the real answer's.
//
// A flag that has tripped, or that a person has disabled, is not mirrored: whatever
// is wrong with its canary, it gets no requests at all.
type Mirror struct {
	// Ratio of the requests that are copied, above 0, at most 1.
	Ratio float64 `json:"ratio"`

	// Timeout of a copy. Its handlers must heed the request's context, as reverse_proxy
	// does (not so its transport fastcgi). Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Concurrency is how many copies may be under way. Default: 20.
	Concurrency int `json:"concurrency,omitempty"`

	// Body compares hashes of the bodies, too.
	Body bool `json:"body,omitempty"`

	flag  string
	app   *App
	ctx   context.Context // of the config
	slots chan struct{}
	seed  maphash.Seed
}

// mirrorHeader marks a copy, with the flag's name.
const mirrorHeader = "X-Feature-Mirror"

func (m *Mirror) provision(ctx caddy.Context, app *App, flag string) error {
	m.app, m.flag, m.ctx, m.seed = app, flag, ctx, maphash.MakeSeed()
	if !(m.Ratio > 0 && m.Ratio <= 1) {
		return fmt.Errorf("ratio: want a number above 0, at most 1, got %g", m.Ratio)
	}
	if m.Timeout == 0 {
		m.Timeout = caddy.Duration(5 * time.Second)
	}
	if m.Concurrency == 0 {
		m.Concurrency = 20
	}
	if m.Timeout < 0 || m.Concurrency < 0 || m.Concurrency > 10_000 {
		return fmt.Errorf("want a timeout above 0 and a concurrency from 1 to 10000, got %s and %d", time.Duration(m.Timeout), m.Concurrency)
	}
	m.slots = make(chan struct{}, m.Concurrency)
	return nil
}

// owns is part of owner.
func (m *Mirror) owns(name string) bool { return equalHeader(name, mirrorHeader) }

// wants tells whether a request that goes to off is to be copied.
func (m *Mirror) wants(rq *request, flag int, r *http.Request) bool {
	d := rq.eval.Decide(flag)
	if rand.Float64() >= m.Ratio {
		return false
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead, hasBody(r), len(r.Header["Upgrade"]) > 0:
		return false
	case rq.copied || rq.exempt || d.Enabled:
		return false
	case d.Reason == evaluator.ReasonDisabled && d.Detail == trustedDetail:
		return false // for what reason is the earlier hop's to know
	}
	s := rq.rules.State(flag)
	return s.Tripped == "" && s.Override != evaluator.Disabled
}

// serve has off answer, and on a copy of the request.
func (m *Mirror) serve(rq *request, flag int, w http.ResponseWriter, r *http.Request, off, on caddyhttp.Handler) error {
	select {
	case m.slots <- struct{}{}:
	default:
		m.app.engine.mirror(m.flag).Drop()
		return off.ServeHTTP(w, r)
	}
	pair := &mirrored{mirror: m, at: time.Now(), id: rq.id()}
	m.send(rq, flag, r, on, pair)
	if x := rq.exposureOf(flag); x != nil {
		x.copies = true
	}
	v := &witness{begun: pair.at, hash: m.hash()}
	v.ResponseWriter = w
	finished := false
	defer func() {
		broken := ""
		if !finished || r.Context().Err() != nil {
			broken = "broken off"
		}
		pair.done(&pair.request, v.answer(broken))
	}()
	err := off.ServeHTTP(v, r)
	finished = true
	if err != nil && v.status == 0 {
		v.status = statusOf(err)
	}
	return err
}

func (m *Mirror) hash() *maphash.Hash {
	if !m.Body {
		return nil
	}
	h := new(maphash.Hash)
	h.SetSeed(m.seed)
	return h
}

// send starts a copy of r on its way. It has nothing in common with the request but
// what nobody changes.
func (m *Mirror) send(rq *request, flag int, r *http.Request, on caddyhttp.Handler, pair *mirrored) {
	sent := false
	defer func() {
		if !sent {
			<-m.slots
		}
	}()
	defer m.app.survive("copying a request")
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Duration(m.Timeout))
	context.AfterFunc(m.ctx, cancel)
	c := r.Clone(ctx)
	c.Body = http.NoBody
	v := &witness{begun: pair.at, hash: m.hash()}
	v.ResponseWriter = nowhere{header: http.Header{}}
	repl := caddy.NewReplacer()
	c = caddyhttp.PrepareRequest(c, repl, v, server)
	original := r.Context().Value(caddyhttp.OriginalRequestCtxKey)
	*c = *c.WithContext(context.WithValue(c.Context(), caddyhttp.OriginalRequestCtxKey, original))
	if own, ok := c.Context().Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		for key, value := range vars {
			own[key] = value
		}
		own[varsKey] = rq.copyFor(flag, c, repl)
	}
	c.Header[mirrorHeader] = []string{m.flag}
	go func() {
		defer func() { <-m.slots }()
		defer cancel()
		broken := m.ask(on, v, c)
		if m.ctx.Err() != nil {
			return // its config is gone
		}
		if broken == "" && ctx.Err() != nil {
			broken = "no whole answer in " + time.Duration(m.Timeout).String()
		}
		pair.done(&pair.copy, v.answer(broken))
	}()
	sent = true
}

// ask has the canary answer a copy, and says what became of it.
func (m *Mirror) ask(on caddyhttp.Handler, v *witness, c *http.Request) (broken string) {
	defer func() {
		switch p := recover(); {
		case p == nil:
		case p == http.ErrAbortHandler:
			broken = "broken off"
		default:
			broken = "panicked"
			m.app.quiet.warn(time.Now(), "mirror_panic", "the canary panicked while it answered a copy", zap.String("flag", m.flag), zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	if err := on.ServeHTTP(v, c); err != nil {
		if v.status != 0 {
			return "broken off"
		}
		v.status = statusOf(err)
	}
	return ""
}

// mirrored is a request and its copy, until both have ended.
type mirrored struct {
	mirror *Mirror
	at     time.Time
	id     string

	mu            sync.Mutex
	request, copy *monitors.MirrorAnswer
}

func (p *mirrored) done(half **monitors.MirrorAnswer, answer monitors.MirrorAnswer) {
	p.mu.Lock()
	*half = &answer
	both := p.request != nil && p.copy != nil
	p.mu.Unlock()
	if both {
		defer p.mirror.app.survive("comparing a copy")
		p.mirror.app.engine.mirror(p.mirror.flag).Compare(monitors.MirrorPair{At: p.at.UTC(), ID: p.id, Request: *p.request, Copy: *p.copy})
	}
}

// witness sees how a request is answered.
type witness struct {
	caddyhttp.ResponseWriterWrapper
	begun  time.Time
	hash   *maphash.Hash // nil: bodies are not compared
	status int
	first  time.Duration
	size   int64
}

func (v *witness) begin(status int) {
	if v.status == 0 {
		v.status, v.first = status, time.Since(v.begun)
	}
}

// WriteHeader is part of http.ResponseWriter.
func (v *witness) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		v.begin(status)
	}
	v.ResponseWriterWrapper.WriteHeader(status)
}

// Write is part of http.ResponseWriter.
func (v *witness) Write(p []byte) (int, error) {
	v.begin(http.StatusOK)
	n, err := v.ResponseWriterWrapper.Write(p)
	if v.status == http.StatusNoContent || v.status == http.StatusNotModified {
		return n, err // there is no body, whatever is written
	}
	v.size += int64(n)
	if v.hash != nil {
		_, _ = v.hash.Write(p[:n])
	}
	return n, err
}

// ReadFrom keeps sendfile and splice working where bodies are not compared.
func (v *witness) ReadFrom(r io.Reader) (int64, error) {
	v.begin(http.StatusOK)
	if v.hash != nil {
		return io.Copy(struct{ io.Writer }{v}, r)
	}
	n, err := v.ResponseWriterWrapper.ReadFrom(r)
	v.size += n
	return n, err
}

// answer says how it was answered; broken is why the answer is not whole.
func (v *witness) answer(broken string) monitors.MirrorAnswer {
	a := monitors.MirrorAnswer{Status: v.status, FirstByte: v.first, Size: v.size, Error: broken}
	if a.Status == 0 && broken == "" {
		a.Status = http.StatusOK // nothing was written: net/http answers so
	}
	if a.FirstByte == 0 {
		a.FirstByte = time.Since(v.begun)
	}
	if v.hash != nil {
		a.Body = max(v.hash.Sum64(), 1)
	}
	return a
}

// nowhere is where answers to copies go.
type nowhere struct{ header http.Header }

// Header is part of http.ResponseWriter.
func (n nowhere) Header() http.Header { return n.header }

// WriteHeader is part of http.ResponseWriter.
func (n nowhere) WriteHeader(int) {}

// Write is part of http.ResponseWriter.
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }

// ReadFrom is part of io.ReaderFrom.
func (n nowhere) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

// FlushError is what http.ResponseController asks for.
func (n nowhere) FlushError() error { return nil }

// gate lets copies look at what is their original's, until it is closed. A nil gate
// has no copies.
type gate struct {
	mu     sync.RWMutex
	closed bool
}

func (g *gate) while(f func()) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.closed {
		f()
	}
}

func (g *gate) close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// copyFor is the record of a copy with flag i on: the same context, and an exposure
// of nothing.
func (rq *request) copyFor(i int, c *http.Request, repl *caddy.Replacer) *request {
	out := &request{app: rq.app, rules: rq.rules, arrival: rq.arrival, site: rq.site, done: true, copied: true, exempt: true, trustedUser: rq.trustedUser, repl: repl}
	out.ctx = rq.ctx.Clone()
	out.eval.Reset(rq.rules.Ruleset, &out.ctx, rq.arrival)
	out.impose(i, out.eval.WhenOn(i))
	out.vars, _ = c.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	repl.Map(out.placeholder)
	if rq.repl != nil {
		// What was matched and verified before is in the original's static part,
		// which may be read while the original goes on; its providers may grow.
		if rq.original == nil {
			rq.original = new(gate)
		}
		before, original := *rq.repl, rq.original
		repl.Map(func(key string) (value any, known bool) {
			if _, ok := cutAny(key, "http.regexp.", "http.auth.", "http.matchers."); ok {
				original.while(func() { value, known = before.Get(key) })
			}
			return value, known
		})
	}
	for _, o := range rq.imposed {
		if o.flag != i {
			out.impose(o.flag, o.decision)
		}
	}
	for _, t := range rq.tellers {
		t.tellAgain(out, []int{i}, c.Header)
	}
	return out
}

// mirror returns the comparisons of a flag, made on first use.
func (e *engine) mirror(flag string) *monitors.Mirror {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.mirrors[flag]
	if m == nil {
		m = new(monitors.Mirror)
		e.mirrors[flag] = m
	}
	return m
}

// mirrorFigures returns the figures of a flag's copies, nil where there were none.
func (e *engine) mirrorFigures(flag string) *monitors.MirrorFigures {
	e.mu.Lock()
	m := e.mirrors[flag]
	e.mu.Unlock()
	if m == nil {
		return nil
	}
	f := m.Figures()
	return &f
}
