package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Fallback has `off` answer a request that the canary fails, before the first
// byte of an answer has gone out, so that nobody sees the canary's failure. The
// failure counts against the canary all the same.
//
// A request is answered by `off` when
//
//   - the canary answers with one of the statuses of `on`, fails without an
//     answer, or has not begun one within `after`;
//   - it may be sent twice: its method is one of `methods`, or it has an
//     Idempotency-Key, or `all` is set. Upgraded connections never are;
//   - its body is not larger than `body`: a larger one streams through;
//   - the budget allows it;
//   - the client is still there.
//
// The request to `off` is the one that the canary got, with the flag told as off
// and the header X-Feature-Fallback, which holds the flag's name. Clients' own
// headers of that name are removed. Early hints (103) of the canary do not reach
// the client where `off` could still answer.
type Fallback struct {
	// All has any request sent again, whatever its method.
	All bool `json:"all,omitempty"`

	// Methods that may be sent twice. Default: GET, HEAD, OPTIONS.
	Methods []string `json:"methods,omitempty"`

	// Body is how many bytes of a request's body are kept for `off`. Default: 65536;
	// at most 16 MiB; -1: requests with a body are not answered by `off`.
	Body int64 `json:"body,omitempty"`

	// Budget bounds what the canary's failures add to the load of `off`.
	Budget *FallbackBudget `json:"budget,omitempty"`

	// On are the statuses that mean failure, and count as one against the canary;
	// below 10 a class of them. Default: 5, which is 5xx.
	On []int `json:"on,omitempty"`

	// After is how long the canary may take to begin its answer, from when it has
	// the request; it does not run while the client is still sending. The canary's
	// handlers must heed the request's context, as reverse_proxy does (not so its
	// transport fastcgi: that has a read_timeout). Default: no limit.
	After caddy.Duration `json:"after,omitempty"`

	flag  string
	app   *App
	spent budget
}

// FallbackBudget bounds how many requests `off` answers for the canary in a second.
// Without it they are a fifth of its own and 10; in it both numbers are to be given.
type FallbackBudget struct {
	// Ratio of the requests that go to `off` by themselves in a second: those of the
	// last one, or the mean of the last ten where that is more.
	Ratio float64 `json:"ratio"`

	// PerSecond is allowed beyond that.
	PerSecond float64 `json:"per_second"`
}

const (
	usualBody = 64 << 10
	mostBody  = 16 << 20
)

// fallbackHeader tells `off` that it answers for the canary of the flag it names.
const fallbackHeader = "X-Feature-Fallback"

func (f *Fallback) provision(app *App, flag string) error {
	f.app, f.flag = app, flag
	for i := range f.Methods {
		f.Methods[i] = strings.ToUpper(f.Methods[i])
	}
	if len(f.Methods) == 0 {
		f.Methods = []string{http.MethodGet, http.MethodHead, http.MethodOptions}
	}
	if len(f.On) == 0 {
		f.On = []int{5}
	}
	for _, status := range f.On {
		if status < 4 || status > 5 && status < 400 || status > 599 {
			return fmt.Errorf("on: want statuses from 400 to 599, 4xx or 5xx, got %d", status)
		}
	}
	switch {
	case f.Body == 0:
		f.Body = usualBody
	case f.Body < -1 || f.Body > mostBody:
		return fmt.Errorf("body: want at most %d bytes, or -1 for none, got %d", mostBody, f.Body)
	}
	if f.After < 0 {
		return fmt.Errorf("after: want a duration above 0, got %s", time.Duration(f.After))
	}
	if f.Budget == nil {
		f.Budget = &FallbackBudget{Ratio: 0.2, PerSecond: 10}
	}
	if b := f.Budget; !(b.Ratio >= 0 && b.PerSecond >= 0) {
		return fmt.Errorf("budget: want two numbers that are not negative, got %g and %g", b.Ratio, b.PerSecond)
	}
	f.spent.FallbackBudget = *f.Budget
	return nil
}

// owns is part of owner.
func (f *Fallback) owns(name string) bool { return equalHeader(name, fallbackHeader) }

// What becomes of a request that the canary fails.
const (
	fellBack     = "answered"    // by off
	refusedTwice = "method"      // it is not safe to send twice
	refusedBody  = "body"        // it is too large to keep
	refusedSpent = "budget"      // off has answered enough of them
	refusedGone  = "client_gone" // nobody waits for the answer
)

// refuses tells why a request would not be answered by off; "" where it may be.
func (f *Fallback) refuses(r *http.Request) string {
	switch {
	case r.Method == http.MethodConnect || len(r.Header["Upgrade"]) > 0:
		return refusedTwice
	case !f.All && !slices.Contains(f.Methods, r.Method) && r.Header.Get("Idempotency-Key") == "":
		return refusedTwice
	case hasBody(r) && (r.ContentLength > f.Body || f.Body < 0):
		return refusedBody
	case len(r.Trailer) > 0:
		return refusedBody // net/http writes to them whenever the body ends, whoever reads it
	}
	return ""
}

// fails tells whether a status of the canary is one that off answers for.
func (f *Fallback) fails(status int) bool {
	return slices.ContainsFunc(f.On, func(on int) bool { return caddyhttp.StatusCodeMatches(status, on) })
}

// statusOf is the status that an error of a handler stands for.
func statusOf(err error) int {
	var he caddyhttp.HandlerError
	if errors.As(err, &he) && he.StatusCode != 0 {
		return he.StatusCode
	}
	return http.StatusInternalServerError
}

// serve has the canary answer, or off where that fails.
func (f *Fallback) serve(rq *request, flag int, w http.ResponseWriter, r *http.Request, canary, off caddyhttp.Handler) error {
	if why := f.refuses(r); why != "" {
		err := canary.ServeHTTP(w, r)
		if x := rq.exposureOf(flag); x != nil && x.outcome != nil && x.outcome.Class.IsError() && f.fails(x.outcome.Status) {
			f.note(rq, flag, why, x.outcome.Status)
		}
		return err
	}
	before := snapshot(w, r)
	a := &attempt{fallback: f, client: r.Context()}
	a.ResponseWriter = w
	if hasBody(r) {
		a.body = newReplayBody(r.Body, int(f.Body))
		r.Body = a.body.reader()
	}
	err := a.serve(r, canary)
	if a.result != "" {
		f.note(rq, flag, a.result, a.status)
	}
	if a.result != fellBack {
		return err
	}
	rq.failed(flag, a.status)
	rq.original.close() // placeholders change hands
	before.restore(w, r, a.again, a.ctx)
	rq.fallBack(flag, r)
	return off.ServeHTTP(w, r)
}

// failed counts the canary of flag i as failed where a route further out was to tell
// the outcome: that sees how off answers.
func (rq *request) failed(i, status int) {
	defer rq.app.survive("counting a failed canary")
	x := rq.exposureOf(i)
	if x == nil || x.outcome != nil {
		return
	}
	now := time.Now()
	x.outcome = &monitors.Outcome{
		Class: monitors.Failed, Status: status, Duration: now.Sub(rq.arrival),
	}
	x.outcome.RequestID, x.outcome.Error = rq.id(), "status "+strconv.Itoa(status)+", answered by off"
	rq.verdict(x, x.End(now, x.outcome))
}

// note counts and logs what became of a failed canary request.
func (f *Fallback) note(rq *request, flag int, result string, status int) {
	defer f.app.survive("noting a fallback")
	if x := rq.exposureOf(flag); x != nil {
		x.fallback = result
	}
	fallbacks.WithLabelValues(f.flag, result).Inc()
	message := "the canary failed; answered by off"
	switch result {
	case refusedGone:
		return
	case refusedTwice:
		message = "the canary failed, and the request may not be sent twice: the client sees it"
	case refusedBody:
		message = "the canary failed, and the request's body was too large to keep: the client sees it"
	case refusedSpent:
		message = "the canary failed, and the budget of fallbacks is spent: the client sees it"
	}
	f.app.quiet.warn(time.Now(), "fallback_"+result, message, zap.String("flag", f.flag), zap.Int("status", status), zap.String("request_id", rq.id()))
}

// fallbackDetail is of a flag for whose canary off answers.
const fallbackDetail = "fallback"

// fallBack has flag i count as off for what is left of the request.
func (rq *request) fallBack(i int, r *http.Request) {
	defer rq.app.survive("falling back")
	rq.fallback = rq.rules.names[i]
	r.Header[fallbackHeader] = []string{rq.fallback}
	if d, ok := rq.rules.Decision(i, evaluator.Off, evaluator.ReasonDefault, fallbackDetail); ok {
		rq.overrule(i, d)
	}
	if vars, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		rq.vars = vars
	}
	var fallen []int // a route inside the canary may have fallen back, too
	for _, o := range rq.imposed {
		if o.decision.Detail == fallbackDetail {
			fallen = append(fallen, o.flag)
		}
	}
	for _, t := range rq.tellers {
		t.tellAgain(rq, fallen, r.Header)
	}
}

// unspoilt is what a handler finds, and may change.
type unspoilt struct {
	request http.Request
	url     url.URL
	header  http.Header
	answer  http.Header
	vars    map[string]any
	groups  map[string]struct{}
	repl    *caddy.Replacer
	before  caddy.Replacer
}

// routeGroups is where Caddy keeps which groups of routes have had their match.
const routeGroups = caddy.CtxKey("route_group")

func snapshot(w http.ResponseWriter, r *http.Request) *unspoilt {
	u := &unspoilt{request: *r, url: *r.URL, header: r.Header.Clone(), answer: w.Header().Clone()}
	if vars, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		u.vars = maps.Clone(vars)
	}
	if groups, ok := r.Context().Value(routeGroups).(map[string]struct{}); ok {
		u.groups = maps.Clone(groups)
	}
	if u.repl, _ = r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); u.repl != nil {
		u.before = *u.repl
	}
	return u
}

// restore has w and r be what they were, in place: handlers further out that have
// made a copy of the request, and the placeholders of the server, look at the same
// address and headers. Of placeholders those that handlers have set one by one stay.
//
// Vars are copies from then on, since a dial that reverse_proxy has left behind may
// be reading them, and the runtime ends a process that writes to a map at the same
// time. Where placeholders look at another request's vars, because a handler further
// out has made a copy, those are put back in place, and the canary's context shows
// what is left of it a copy.
func (u *unspoilt) restore(w http.ResponseWriter, r *http.Request, body io.ReadCloser, canary *canaryContext) {
	h := w.Header()
	clear(h)
	maps.Copy(h, u.answer)
	if u.repl != nil {
		*u.repl = u.before
	}
	ctx := u.request.Context()
	live, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	own := maps.Clone(u.vars)
	if u.vars != nil {
		own[varsProbe] = true
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, own)
	}
	if u.groups != nil {
		ctx = context.WithValue(ctx, routeGroups, u.groups)
	}
	*u.request.URL = u.url
	clear(u.request.Header)
	maps.Copy(u.request.Header, u.header)
	*r = *u.request.WithContext(ctx)
	if body != nil {
		r.Body = body
	}
	if u.vars == nil || u.repl == nil {
		return
	}
	seen, _ := u.repl.Get("http.vars." + varsProbe)
	delete(own, varsProbe)
	if seen != true {
		frozen := maps.Clone(live)
		canary.vars.Store(&frozen)
		clear(live)
		maps.Copy(live, u.vars)
		*r = *r.WithContext(context.WithValue(ctx, caddyhttp.VarsCtxKey, live))
	}
}

// varsProbe is set for a moment, to see whose vars placeholders look at.
const varsProbe = "feature_flags_probe"

// canaryContext is the context of a canary's try.
type canaryContext struct {
	context.Context
	vars atomic.Pointer[map[string]any] // what is left of the canary sees these vars; nil: the request's
}

// Value is part of context.Context.
func (c *canaryContext) Value(key any) any {
	if key == caddyhttp.VarsCtxKey {
		if vars := c.vars.Load(); vars != nil {
			return *vars
		}
	}
	return c.Context.Value(key)
}

// budget counts what off answers, by tenths of a second.
type budget struct {
	FallbackBudget

	mu     sync.Mutex
	tenths [100]tenth // the last ten seconds
}

type tenth struct {
	number            int64
	control, answered int
}

// processBegan is what times of budgets are counted from.
var processBegan = time.Now()

// at returns the tenth of now. The caller must hold mu.
func (b *budget) at(now time.Time) (number int64, t *tenth) {
	number = int64(now.Sub(processBegan) / (100 * time.Millisecond))
	t = &b.tenths[uint64(number)%uint64(len(b.tenths))]
	if t.number < number {
		*t = tenth{number: number}
	}
	return number, t
}

// control counts a request that went to off by itself.
func (b *budget) control(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, t := b.at(now)
	t.control++
}

// take counts a request that off answers for the canary, unless there were enough
// in the last second. The control's rate is that of the last second, or of the last
// ten where that was higher: requests that hang fail when the others are long over.
func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	number, t := b.at(now)
	second, ten, answered := 0, 0, 0
	for i := range b.tenths {
		t := &b.tenths[i]
		switch age := number - t.number; {
		case age < 10:
			second += t.control
			answered += t.answered
			fallthrough
		case age < int64(len(b.tenths)):
			ten += t.control
		}
	}
	if rate := max(float64(second), float64(ten)/10); float64(answered) >= b.PerSecond+b.Ratio*rate {
		return false
	}
	t.answered++
	return true
}
