package caddymodule

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// request is everything about one request: who asks, what was decided by which
// rules, and which flags it is an exposure of. It lives in the request's vars,
// so that matchers, routes and the selection policy share one decision.
type request struct {
	app      *App
	rules    *rules
	arrival  time.Time
	ctx      evaluator.Context
	eval     evaluator.Evaluation
	site     *siteRules // of the handler whose context was read; nil: a route or matcher came first
	tellers  []teller   // the handlers that have told the application
	first    [1]teller
	header   http.Header
	vary     [1]string // header names this response varies by; the response's own line of Vary, as long as nobody else touches it
	values   [2]string // a few headers' memory
	cookie   string    // Set-Cookie of a new sticky id
	fresh    string    // the same, held back by takeOver
	sticky   bool      // the user is who a sticky id says, which is whoever a client says
	done     bool      // the outcome is known: nothing is an exposure any more
	copied   bool      // it is a copy of a request, and counts for nothing
	fallback string    // the flag whose canary has failed and whose off answers; "" none
	imposed  []imposed // decisions that somebody else has made

	original    *gate  // what copies of it look at; nil: there are none
	chained     bool   // what clients say in the place of earlier hops is removed
	exempt      bool   // of a tester: it speaks for and against no flag
	tester      string // the link by which a tester has chosen a variant; "" nobody has
	trustedUser string // a pseudonym of the user by whose key an earlier hop has decided

	// What the request is an exposure of: flags one by one, and the bulk of
	// those that only need counting.
	exposures   []exposure
	few         [1]exposure
	bulk        *decisionSet
	ticket      bulkTicket // of the bulk's guards
	taken       bool       // some of the bulk are followed one by one all the same
	bulkCounted bool       // by what watch came to

	hashed struct { // the last user that was hashed
		key  string
		hash uint64
	}

	watch observer       // of the outermost handler of ours
	vars  map[string]any // of the request; only to be read once it is proxied
	name  string         // what id gave
	repl  *caddy.Replacer
	span  trace.Span
}

// exposure is a flag for which the request mattered, followed on its own.
type exposure struct {
	monitors.Exposure
	index    int
	decision *evaluator.Decision
	outcome  *monitors.Outcome // nil: not known yet
	routed   bool              // a feature_route tells the outcome
	matched  bool              // the answer means failure by guard.errors.match
	copies   bool              // a copy was sent to the canary
	fallback string            // what became of it where the canary failed and `off` might have answered; "" else
}

const varsKey = "feature_flags"

// String keeps identities out of {http.vars.feature_flags}.
func (rq *request) String() string { return "feature_flags" }

// requestOf returns the request's record, or nil.
func requestOf(r *http.Request) *request {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	rq, _ := vars[varsKey].(*request)
	return rq
}

// newRequest begins the record of r and puts it where others find it.
func newRequest(app *App, r *http.Request) *request {
	rq := &request{app: app, rules: app.rules.Load(), arrival: time.Now()}
	rq.exposures, rq.tellers = rq.few[:0], rq.first[:0]
	rq.ctx.Environment = app.environment
	rq.eval.Reset(rq.rules.Ruleset, &rq.ctx, rq.arrival)
	c := r.Context()
	if vars, ok := c.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		rq.vars = vars
		vars[varsKey] = rq
	}
	if rq.repl, _ = c.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); rq.repl != nil {
		rq.repl.Map(rq.placeholder)
	}
	// Setting a log field costs four allocations: only where somebody logs.
	if server, ok := c.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs != nil {
		if extra, ok := c.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
			extra.Set(zap.Object("feature_flags", rq))
		}
	}
	rq.span = recordingSpan(c)
	return rq
}

func recordingSpan(c context.Context) trace.Span {
	if span := trace.SpanFromContext(c); span.IsRecording() {
		return span
	}
	return nil
}

// decide returns the decision on flag number i, the same throughout the
// request, and makes the request an exposure of the flag.
func (rq *request) decide(i int) *evaluator.Decision {
	d := rq.eval.Decide(i)
	rq.app.seeUndecided(rq.arrival, d)
	if !rq.done && !rq.inBulk(i) && rq.exposureOf(i) == nil {
		rq.expose(i, d)
		rq.trace(d)
	}
	return d
}

// seeUndecided tells of a flag that cannot be decided for a request, as its rules say
// what cannot be worked out.
func (a *App) seeUndecided(now time.Time, d *evaluator.Decision) {
	if d.Code == evaluator.General {
		a.quiet.warn(now, "undecided", "a feature flag cannot be decided for a request, and is off", zap.String("flag", d.Flag), zap.String("error", d.Message))
	}
}

// imposed is a decision that somebody else has made.
type imposed struct {
	flag     int
	decision *evaluator.Decision
}

// impose has flag i decided as d says from here on. A flag that the request is an
// exposure of stays as it was decided.
func (rq *request) impose(i int, d *evaluator.Decision) {
	if rq.exposureOf(i) == nil {
		rq.overrule(i, d)
	}
}

// overrule is impose whatever was decided before.
func (rq *request) overrule(i int, d *evaluator.Decision) {
	rq.eval.Impose(i, d)
	for k := range rq.imposed {
		if rq.imposed[k].flag == i {
			rq.imposed[k].decision = d
			return
		}
	}
	rq.imposed = append(rq.imposed, imposed{i, d})
}

// isImposed tells whether somebody else has decided flag i.
func (rq *request) isImposed(i int) bool {
	return slices.ContainsFunc(rq.imposed, func(o imposed) bool { return o.flag == i })
}

// inBulk tells whether flag i was decided with all others.
func (rq *request) inBulk(i int) bool { return rq.bulk != nil && rq.site.place[i] >= 0 }

// decideByName is decide for flags that may not be defined.
func (rq *request) decideByName(name string) *evaluator.Decision {
	if i := rq.rules.Index(name); i >= 0 {
		return rq.decide(i)
	}
	return evaluator.Unknown(name)
}

// expose makes the request an exposure of flag i, and follows it where somebody
// watches its answer.
func (rq *request) expose(i int, d *evaluator.Decision) *exposure {
	m := &rq.rules.monitors[i]
	rq.exposures = append(rq.exposures, exposure{Exposure: m.flag.Expose(rq.rules.cell(i, rq.rules.code(d))), index: i, decision: d})
	x := &rq.exposures[len(rq.exposures)-1]
	if rq.watch.rq != nil {
		rq.begin(x)
	}
	return x
}

// begin follows an exposure.
func (rq *request) begin(x *exposure) {
	if rq.exempt {
		x.Exempt()
		return
	}
	var t monitors.Ticket
	if rq.rules.monitors[x.index].guarded && rq.compared(x.index, x.decision) {
		t = rq.ticketOf(x.index, x.decision.Enabled)
	}
	x.Follow(rq.arrival, t)
}

// compared tells whether the request is of the canary or of the control of flag i:
// the split decided, and no other flag of its group would have won all the same.
func (rq *request) compared(i int, d *evaluator.Decision) bool {
	switch {
	case d.Reason != evaluator.ReasonSplit || d.Detail == apartDetail:
		return false
	case d.Detail == trustedDetail:
		return true
	}
	return d.Enabled || rq.eval.Contends(i)
}

// beginAll follows what the request is an exposure of by now.
func (rq *request) beginAll() {
	defer rq.app.survive("beginning to watch")
	for k := range rq.exposures {
		rq.begin(&rq.exposures[k])
	}
}

// trace notes a decision in the request's span.
func (rq *request) trace(d *evaluator.Decision) {
	if rq.span == nil {
		return
	}
	rq.span.AddEvent("feature_flag.evaluation", trace.WithAttributes(
		attribute.String("feature_flag.key", d.Flag),
		attribute.String("feature_flag.result.variant", d.Variant),
		attribute.String("feature_flag.result.reason", strings.ToLower(string(d.Reason))),
		attribute.String("feature_flag.provider.name", "caddy-feature-flags"),
	))
}

func (rq *request) exposureOf(i int) *exposure {
	for k := range rq.exposures {
		if rq.exposures[k].index == i {
			return &rq.exposures[k]
		}
	}
	return nil
}

// follow returns flag i's own exposure, taking it out of the bulk if need be;
// nil when the request's outcome is known already.
func (rq *request) follow(i int) (x *exposure) {
	defer rq.app.survive("following a request")
	if rq.done {
		return nil
	}
	if x := rq.exposureOf(i); x != nil {
		return x
	}
	d := rq.eval.Decide(i)
	if rq.inBulk(i) {
		rq.taken = true
	} else {
		rq.trace(d)
	}
	return rq.expose(i, d)
}

// ticketOf gives the ticket that flag i's guard follows the request by on its own.
func (rq *request) ticketOf(i int, isCanary bool) monitors.Ticket {
	if rq.inBulk(i) && !rq.site.alone[rq.site.place[i]] {
		rq.ticket.LeaveOut(i) // of the bulk
	}
	user := cmp.Or(rq.eval.BucketKey(i), rq.trustedUser)
	if user == "" { // an earlier hop has split by what nobody here knows
		return monitors.Ticket{}
	}
	m := &rq.rules.monitors[i]
	return m.flag.Enter(rq.arrival, m.epoch.Load(), isCanary, rq.hashOf(user))
}

// hashOf is the hash of a user.
func (rq *request) hashOf(key string) uint64 {
	if key != rq.hashed.key || rq.hashed.hash == 0 {
		rq.hashed.key, rq.hashed.hash = key, rq.app.engine.hash(key)
	}
	return rq.hashed.hash
}

// varyBy notes that the response depends on flag i's decision, and so on the
// headers that it was read from.
func (rq *request) varyBy(i int) {
	if rq.done || i < 0 {
		return
	}
	rq.varyOn(rq.site.varyOf(rq.rules, i))
	if rq.site == nil && rq.app.pins.touch(rq.rules.Definition(i)) {
		rq.varyOn("Cookie")
	}
}

// varyOn notes that the response depends on request headers.
func (rq *request) varyOn(names string) {
	switch {
	case names == "" || names == rq.vary[0] || rq.vary[0] == "*":
		return
	case rq.vary[0] == "" || names == "*":
		rq.vary[0] = names
	default:
		line := rq.vary[0]
		for name := range strings.SplitSeq(names, ", ") {
			if !slices.Contains(strings.Split(line, ", "), name) {
				line += ", " + name
			}
		}
		rq.vary[0] = line
	}
	if rq.header != nil {
		rq.addVary(rq.header)
	}
}

// addVary adds what is missing of the names to Vary.
func (rq *request) addVary(h http.Header) {
	lines := h["Vary"]
	if len(lines) == 0 {
		h["Vary"] = rq.vary[:1:1]
		return
	}
	if lines[0] == rq.vary[0] {
		return
	}
	for name := range strings.SplitSeq(rq.vary[0], ", ") {
		if !hasToken(h["Vary"], name) {
			h["Vary"] = append(h["Vary"], name)
		}
	}
}

// hasToken tells whether one of the lines lists the name, or everything.
func hasToken(lines []string, name string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.TrimSpace(part); part == "*" || strings.EqualFold(part, name) {
				return true
			}
		}
	}
	return false
}

// mark puts what we owe the response into its headers, again if a 103 has
// emptied them.
func (rq *request) mark(h http.Header) {
	if rq.vary[0] != "" {
		rq.addVary(h)
	}
	if rq.cookie != "" && !slices.Contains(h["Set-Cookie"], rq.cookie) {
		h["Set-Cookie"] = append(h["Set-Cookie"], rq.cookie)
	}
}

// placeholder answers {http.feature_flags.NAME}, .NAME.reason and .NAME.value.
func (rq *request) placeholder(key string) (value any, known bool) {
	name, found := strings.CutPrefix(key, "http.feature_flags.")
	if !found {
		return nil, false
	}
	defer rq.app.survive("filling in a placeholder")
	if i := rq.rules.Index(name); i >= 0 {
		return rq.decide(i).Variant, true
	}
	if flag, ok := strings.CutSuffix(name, ".reason"); ok {
		return string(rq.decideByName(flag).Reason), true
	}
	if flag, ok := strings.CutSuffix(name, ".value"); ok {
		return valueText(rq.decideByName(flag).Value), true
	}
	return evaluator.Off, true
}

// MarshalLogObject writes the access log's field: what was decided, and what
// each exposure came to.
func (rq *request) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for k := range rq.exposures {
		x := &rq.exposures[k]
		if err := enc.AddObject(x.decision.Flag, logged{rq, x.index, x.decision, x.outcome, x.fallback, x.copies}); err != nil {
			return err
		}
	}
	if rq.bulk == nil {
		return nil
	}
	var outcome *monitors.Outcome
	if rq.bulkCounted {
		outcome = &rq.watch.result
	}
	for _, c := range rq.site.counted {
		i := rq.site.told[c.place]
		if rq.exposureOf(i) != nil {
			continue
		}
		d := rq.eval.Decide(i)
		if err := enc.AddObject(d.Flag, logged{rq, i, d, outcome, "", false}); err != nil {
			return err
		}
	}
	return nil
}

// logged is one flag in the access log.
type logged struct {
	rq       *request
	index    int
	decision *evaluator.Decision
	outcome  *monitors.Outcome
	fallback string
	copies   bool
}

// MarshalLogObject is part of zapcore.ObjectMarshaler.
func (l logged) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("variant", l.decision.Variant)
	enc.AddString("reason", string(l.decision.Reason))
	if l.decision.Detail != "" {
		enc.AddString("detail", l.decision.Detail)
	}
	if l.decision.Reason == evaluator.ReasonSplit && !l.rq.compared(l.index, l.decision) {
		enc.AddBool("compared", false)
	}
	if o := l.outcome; o != nil {
		enc.AddString("outcome", o.Class.String())
		if o.Answered {
			enc.AddFloat64("ttfb", o.FirstByte.Seconds())
		}
		if o.RequestID != "" {
			enc.AddString("request_id", o.RequestID)
		}
	}
	if l.decision.Detail == testerDetail && l.rq.tester != "" {
		enc.AddString("link", l.rq.tester)
	}
	if l.copies {
		enc.AddString("mirror_id", l.rq.id())
	}
	if l.fallback != "" {
		enc.AddString("fallback", l.fallback)
	}
	return nil
}

// unavailable counts the canary of flag i as failed although somebody else
// serves the request.
func (rq *request) unavailable(i int) {
	defer rq.app.survive("counting a canary that is not there")
	x := rq.follow(i)
	if x == nil || x.outcome != nil {
		return
	}
	now := time.Now()
	x.outcome = &monitors.Outcome{
		Class: monitors.Failed, Status: http.StatusServiceUnavailable, Duration: now.Sub(rq.arrival),
		RequestID: rq.id(), Error: "no upstream of the canary is available",
	}
	rq.verdict(x, x.End(now, x.outcome))
}
