package monitors

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"
)

// Verdict is what a guard has come to.
type Verdict struct {
	Kind   VerdictKind
	Test   string // of a trip: the test that weighs most
	Reason string // of a hold, in words
}

// VerdictKind is one of the four.
type VerdictKind string

// The verdicts. Keep is the everyday one; on Hold a rollout stops climbing, and
// the canary keeps its share; on Trip the flag is turned off; Recovered is said
// of a canary on probation that has proved to be no worse.
const (
	Keep      VerdictKind = "keep"
	Hold      VerdictKind = "hold"
	Trip      VerdictKind = "trip"
	Recovered VerdictKind = "recovered"
)

// verdict says what the tests and the watch come to. The caller must hold mu.
func (g *Guard) verdict(now time.Time) Verdict {
	switch {
	case g.tripped != "":
		return Verdict{Kind: Trip, Test: g.tripped}
	case g.recovery.proved() && g.users[canary] > float64(g.config.MinUsers)-0.5 && g.warm(canary, now) && g.watch.reason == "":
		return Verdict{Kind: Recovered}
	case g.watch.reason != "":
		return Verdict{Kind: Hold, Reason: g.watch.reason}
	}
	return Verdict{Kind: Keep}
}

// The reasons to hold, in the order in which they are told.
const (
	HoldTraffic  = "traffic of the canary drops"
	HoldGone     = "clients of the canary leave without an answer"
	HoldControl  = "control fails too"
	HoldSlow     = "control is slower than usual, too"
	HoldEvidence = "evidence against the canary"
	HoldSilence  = "no traffic"
	HoldWarmUp   = "warming up"
)

// holding watches for what makes the tests say nothing, or says too little to
// trip: a rollout must not climb meanwhile. Its rules are plain ones: a hold that
// was not needed costs a few minutes.
type holding struct {
	reason   string
	there    [holdWindows][2]float64 // who was, in ten seconds each: a ring; the one at windows is filled
	windows  int
	current  window
	before   window
	began    time.Time // of the current one
	quiet    [2]time.Time
	latest   [usualAfter]Stratum // of the last seconds: a ring; the one at seconds is filled
	seconds  int
	bad, n   float64   // of the control while nothing was wrong with it, fading
	failed   time.Time // when the control was last as usual
	failsToo bool      // the control, just now
	slow     bool
	present  [2]headcount // users of the current window
	wanted   float64      // the canary's share of those who are there before it dropped; 0: it has not
	dropped  time.Time    // when it was last as it should be
	late     [2]float64   // who were there in the last windows
	silent   bool
}

// window is what came in ten seconds.
type window struct {
	arrived [2]int64 // all of them, also those that the tests do not see
	gone    [2]int64 // of them, without an answer
	unknown [2]int64 // of them, of nobody known
	errors  Stratum
	slow    Stratum // above the limit of the p90
}

const (
	holdWindows = 16
	windowLong  = 10 * time.Second
	silence     = 5 * time.Minute
	suspicion   = 20 // E, above which a rollout does not climb
	lastWindows = 3
	stillThere  = 0.6       // of the canary's share of those who are there: with less its traffic has dropped
	backAgain   = 0.8       // from here on it is back
	longDrop    = time.Hour // and after so long it is as usual
	leastUsual  = 50        // requests of the control, before its usual error rate is known
	longFailing = time.Hour
	usualFade   = 1 - 1.0/600 // a second: ten minutes
	usualAfter  = 5           // seconds, before what was counts as usual: an outage must be seen by then
)

// forget begins anew where shares are compared with earlier ones.
func (h *holding) forget() {
	h.there, h.windows, h.wanted = [holdWindows][2]float64{}, 0, 0
	h.current, h.before, h.present = window{}, window{}, [2]headcount{}
}

// comes notes who is there. How often somebody asks does not matter: when one
// heavy user leaves, one has left. Requests of nobody known are one each.
func (h *holding) comes(of cohort, user uint64) {
	if user == 0 {
		h.current.unknown[of]++
		return
	}
	h.present[of].add(user)
}

// block adds what a block came to.
func (h *holding) block(c *blockCounts) {
	h.current.errors.plus(c.errors)
	h.current.slow.plus(c.latency[1])
	for of, n := range c.came {
		h.current.arrived[of] += n
		h.current.gone[of] += c.gone[of]
	}
	h.latest[h.seconds%usualAfter].plus(c.errors)
}

// second looks at the windows, once a second.
func (h *holding) second(g *Guard, now time.Time) {
	if h.began.IsZero() {
		h.began, h.quiet = now, [2]time.Time{now, now}
	}
	for of := range canary + 1 {
		if h.current.arrived[of] > 0 {
			h.quiet[of] = now
		}
		h.there[h.windows%holdWindows][of] = h.present[of].count() + float64(h.current.unknown[of])
	}
	failing, slow, before := h.failing(), h.slower(), h.wanted
	h.failsToo = failing
	dropping := h.dropping(now)
	if before == 0 {
		h.dropped = now
	}
	h.silent = h.quietFor(control, now) || h.quietFor(canary, now)
	switch {
	case !failing:
		h.failed = now
	case now.Sub(h.failed) >= longFailing: // it is what is usual now
		h.bad, h.n = 0, 0
	}
	h.seconds++
	oldest := &h.latest[h.seconds%usualAfter]
	if failing {
		h.latest = [usualAfter]Stratum{} // none of them is usual: it may have begun to fail in any
	} else {
		h.bad = h.bad*usualFade + float64(oldest.X0)
		h.n = h.n*usualFade + float64(oldest.N0)
	}
	*oldest = Stratum{}
	if now.Sub(h.began) >= windowLong {
		h.windows++
		h.began = now
		h.there[h.windows%holdWindows] = [2]float64{}
		h.before, h.current, h.present = h.current, window{}, [2]headcount{}
	}
	switch e := g.evidence; {
	case g.config.Traffic != TrafficOff && (dropping || logAddExp(e.arrivals+logWeights[2], e.engagement+logWeights[3]) >= g.judge.tripAt):
		h.reason = HoldTraffic
	case failing:
		h.reason = HoldControl
	case h.leaving():
		h.reason = HoldGone
	case slow:
		h.reason = HoldSlow
	case e.whole >= math.Log(suspicion) && (e.leading(true) != TestLatency || g.manyAreSlow(math.Log(suspicion))):
		h.reason = HoldEvidence
	case h.silent:
		h.reason = HoldSilence
	case !g.warm(canary, now):
		h.reason = HoldWarmUp
	default:
		h.reason = ""
	}
}

// last sums the latest windows up, and what was before them.
func (h *holding) last() (late, before [2]float64, known int) {
	for i := range min(h.windows+1, holdWindows) {
		w := &h.there[(h.windows-i)%holdWindows]
		sum := &late
		if i >= lastWindows {
			sum = &before
			known++
		}
		sum[control] += w[control]
		sum[canary] += w[canary]
	}
	return late, before, known
}

// quietFor tells whether nobody has come for long: for a minute where ten should
// have, or for five.
func (h *holding) quietFor(of cohort, now time.Time) bool {
	gap := now.Sub(h.quiet[of])
	if gap < silence/5 {
		return false
	}
	_, before, known := h.last()
	return h.silent || gap >= silence || before[of]/float64(max(known, 1))*float64(silence/5/windowLong) >= 10
}

// recent sums the last ten to twenty seconds up.
func (h *holding) recent() window {
	w := h.current
	w.errors.plus(h.before.errors)
	w.slow.plus(h.before.slow)
	for of := range w.arrived {
		w.arrived[of] += h.before.arrived[of]
		w.gone[of] += h.before.gone[of]
	}
	return w
}

// leaving tells whether many more clients of the canary than of the control leave
// before their answer begins.
func (h *holding) leaving() bool {
	w := h.recent()
	if w.gone[canary] < 10 {
		return false
	}
	share := func(of cohort) float64 { return float64(w.gone[of]) / float64(max(w.arrived[of], 1)) }
	return share(canary) > 3*share(control)+0.1
}

// failing tells whether the control fails much more than usual.
func (h *holding) failing() bool {
	s := h.recent().errors
	if h.n < leastUsual || s.X0 < 5 {
		return false
	}
	usual := (h.bad + 3) / (h.n + 50) // a little more, where little is known
	return float64(s.X0)/float64(s.N0) > 3*usual+0.02
}

// slower tells whether a good part of the control's requests are slower than nine
// in ten were.
func (h *holding) slower() bool {
	s := h.recent().slow
	if s.N0 < 20 {
		return h.slow && s.N0 > 0
	}
	share := float64(s.X0) / float64(s.N0)
	h.slow = share > 0.4 || h.slow && share > 0.3
	return h.slow
}

// dropping tells whether the canary's share of those who are there has fallen to
// less than six tenths of what it was in the minutes before, beyond what it varies.
func (h *holding) dropping(now time.Time) bool {
	late, before, known := h.last()
	all, past := late[0]+late[1], before[0]+before[1]
	if h.windows < lastWindows || known < lastWindows || past == 0 {
		return false
	}
	h.late = late
	if h.wanted > 0 { // until it is back
		// Of silence nobody can say that it is the canary's.
		if want := h.wanted * all; want < 20 || late[canary] > backAgain*want || now.Sub(h.dropped) >= longDrop {
			h.wanted = 0
		}
		return h.wanted > 0
	}
	share := before[canary] / past
	want := share * all
	if want < 20 || past < all/2 || late[canary] > stillThere*want {
		return false
	}
	// How much more than chance has it the share varied between windows.
	varied := 1.0
	for i := lastWindows; i < min(h.windows, holdWindows); i++ {
		w := &h.there[(h.windows-i)%holdWindows]
		if n := w[control] + w[canary]; n > 0 {
			off := w[canary] - share*n
			varied += off * off / (n * share * (1 - share))
		}
	}
	varied = max(varied/float64(known), 1)
	if want-late[canary] > 5*math.Sqrt(varied*want*(1-share)*(1+all/past)) {
		h.wanted = share
	}
	return h.wanted > 0
}

// GuardStatus is what people read about a guard.
type GuardStatus struct {
	Verdict VerdictKind         `json:"verdict"`
	Test    string              `json:"test,omitempty"`   // of a trip
	Reason  string              `json:"reason,omitempty"` // of a hold
	Since   time.Time           `json:"since"`
	Epoch   int64               `json:"epoch"` // of definition and percentage, counted from 0
	Share   float64             `json:"share"` // of the users whom the split puts into the canary, per cent
	Trial   int                 `json:"trial"` // of the detector: this one's bound is α·2^-trial
	LogE    map[string]*float64 `json:"log_e"` // natural logarithm of the evidence by test, and `total` of all, as weighted; null: none yet
	TripAt  float64             `json:"trip_at"`
	Canary  GuardCohort         `json:"canary"`
	Control GuardCohort         `json:"control"`
	Slow    []float64           `json:"slow_above,omitempty"`  // seconds to the first byte: the control's p50, p90, p99; the canary may take the tolerance more
	Proof   *float64            `json:"proof_log_e,omitempty"` // on probation: the evidence that the canary is no worse; it is back in full at ln 100
}

// GuardCohort is one cohort's part of it.
type GuardCohort struct {
	Requests int64   `json:"requests"` // but those whose client left
	Bad      int64   `json:"bad"`
	Judged   int64   `json:"judged"` // without those of users who had met an error before
	Users    int64   `json:"users"`  // different ones since users were last forgotten, about
	P50      float64 `json:"p50"`    // seconds to the first byte, over the last minutes
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
}

// Status returns the figures of the moment.
func (g *Guard) Status(now time.Time) GuardStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.verdict(now)
	s := GuardStatus{
		Verdict: v.Kind, Test: v.Test, Reason: v.Reason, Since: g.shown.UTC(), Epoch: g.epoch.Load(), Share: 100 * g.config.Share,
		Trial: g.config.Trial, TripAt: g.judge.tripAt,
		Canary: g.cohort(canary), Control: g.cohort(control),
		LogE: map[string]*float64{
			TestErrors: finite(g.evidence.errors), TestLatency: finite(g.evidence.latency),
			TestArrivals: finite(g.evidence.arrivals), TestEngagement: finite(g.evidence.engagement), "total": finite(g.weight()),
		},
	}
	if g.limits != nil {
		for _, limit := range g.limits[control] {
			s.Slow = append(s.Slow, limit.Seconds())
		}
	}
	if g.recovery != nil {
		s.Proof = finite(g.recovery.proof.logE)
	}
	return s
}

// Holds tells why a rollout must not climb, "" where nothing is against it. A guard
// that has just begun, or goes on after a restart, knows nothing yet.
func (g *Guard) Holds(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.second < leastSeconds {
		return HoldWarmUp
	}
	switch v := g.verdict(now); v.Kind {
	case Hold:
		return v.Reason
	case Trip:
		return "tripped"
	}
	return ""
}

// leastSeconds is how long a guard watches before it says that nothing is against a
// canary.
const leastSeconds = 2

// Arrived is how many requests of the canary the guard has judged in this epoch.
func (g *Guard) Arrived() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.behind > 0 {
		return 0
	}
	return g.here
}

func (g *Guard) cohort(of cohort) GuardCohort {
	judged, _ := g.sum.errors.of(of)
	quantile := func(q float64) float64 { return g.past[of].quantile(q).Seconds() }
	return GuardCohort{
		Requests: g.arrived[of], Bad: g.bad[of], Judged: *judged, Users: int64(g.users[of] + 0.5),
		P50: quantile(0.5), P90: quantile(0.9), P99: quantile(0.99),
	}
}

// finite is nil for what JSON cannot say.
func finite(f float64) *float64 {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil
	}
	return &f
}

// Evidence says why the guard trips, at now.
func (g *Guard) Evidence(now time.Time) *Evidence {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := append([]FailedRequest(nil), g.last...)
	test := cmp.Or(g.tripped, g.leading())
	chance := math.Exp(min(g.weight(), 700))
	e := &Evidence{
		Test: test, Since: g.shown.UTC(), Limit: math.Exp(g.judge.tripAt), Found: chance, Last: last,
		Guard: &GuardEvidence{From: g.calm.at.UTC(), LogE: g.weight(), Users: g.victims.count(), Share: 100 * g.config.Share, Epoch: g.epoch.Load(), Trial: g.config.Trial},
	}
	judged, bad := g.window(test)
	e.Canary, e.Control = CohortEvidence{Requests: judged.N1, Errors: judged.X1}, CohortEvidence{Requests: judged.N0, Errors: judged.X0}
	if test == TestLatency {
		e.Canary, e.Control = CohortEvidence{Requests: judged.N1, Slow: judged.X1}, CohortEvidence{Requests: judged.N0, Slow: judged.X0}
		e.Guard.Quantile = latencyQuantiles[g.judge.slowest()]
	}
	if test == TestErrors {
		e.Guard.Late = g.judge.breaksOff()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (share %s %%)", bad, short(100*g.config.Share))
	if test == TestErrors && !g.anonymous {
		n := g.victims.count()
		fmt.Fprintf(&b, ", %d different %s", n, plural(n, "user", "users"))
	}
	if test == TestTraffic {
		e.Limit, e.Found = 100*(1-stillThere), 100*(1-float64(judged.N1)/max(g.watch.wanted*float64(judged.N1+judged.N0), 1))
		e.Summary = b.String()
		return e
	}
	fmt.Fprintf(&b, ", evidence 1 in %s by chance (limit 1 in %s)", thousands(chance), thousands(e.Limit))
	e.Summary = b.String()
	return e
}

// window returns what a test has seen since nothing spoke against the canary, and
// says it in words. The caller must hold mu.
func (g *Guard) window(test string) (s Stratum, words string) {
	switch test {
	case TestLatency:
		most := g.judge.slowest()
		s = g.sum.latency[most].minus(g.calm.latency[most])
		limit, slower := "", ""
		if g.limits != nil {
			limit = g.limits[control][most].Round(100 * time.Microsecond).String()
			slower = g.limits[canary][most].Round(100 * time.Microsecond).String()
		}
		return s, fmt.Sprintf("%d of %d canary requests took longer than %s to the first byte, against %d of %d of the control longer than %s (its p%g)",
			s.X1, s.N1, slower, s.X0, s.N0, limit, 100*latencyQuantiles[most])
	case TestTraffic:
		s = Stratum{N1: int64(g.watch.late[canary] + 0.5), N0: int64(g.watch.late[control] + 0.5)}
		who := "users"
		if g.anonymous {
			who = "requests"
		}
		return s, fmt.Sprintf("%s %% of the %s of the last half minute were the canary's, %s %% before: much of its traffic has not come for %v",
			short(100*float64(s.N1)/float64(max(s.N1+s.N0, 1))), who, short(100*g.watch.wanted), tripDropped)
	case TestArrivals:
		a := g.sum.arrivals
		s = Stratum{N1: a[canary] - g.calm.arrivals[canary], N0: a[control] - g.calm.arrivals[control]}
		return s, fmt.Sprintf("%d users came to the canary and %d to the control", s.N1, s.N0)
	case TestEngagement:
		s = g.sum.left.minus(g.calm.left)
		return s, fmt.Sprintf("%d of %d users of the canary did not come back within %d s, against %d of %d of the control", s.X1, s.N1, visitGone, s.X0, s.N0)
	}
	if g.judge.breaksOff() {
		s = g.sum.late.minus(g.calm.late)
		return s, fmt.Sprintf("%d of %d canary requests broke off after their answer had begun, against %d of %d of the control", s.X1, s.N1, s.X0, s.N0)
	}
	s = g.sum.errors.minus(g.calm.errors)
	words = fmt.Sprintf("%d of %d canary requests failed", s.X1, s.N1)
	if silent := g.sum.silent[canary] - g.calm.silent[canary]; silent > 0 {
		words += fmt.Sprintf(" (%d of them without an answer in time)", silent)
	}
	return s, words + fmt.Sprintf(" against %d of %d of the control", s.X0, s.N0)
}

// Rates returns the share of bad requests of both cohorts that a trip by a test
// was about.
func (e *Evidence) Rates() (ofCanary, ofControl float64) {
	rate := func(c CohortEvidence) float64 {
		if c.Requests == 0 {
			return 0
		}
		return float64(max(c.Errors, c.Slow)) / float64(c.Requests)
	}
	return rate(e.Canary), rate(e.Control)
}

func short(f float64) string { return fmt.Sprintf("%.4g", f) }

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// thousands writes a large number as people do: 12,000.
func thousands(f float64) string {
	if f >= 1e15 {
		return fmt.Sprintf("%.0e", f)
	}
	if f > 100 { // two digits say enough
		unit := math.Pow(10, math.Floor(math.Log10(f))-1)
		f = math.Floor(f/unit+1e-9) * unit
	}
	digits := fmt.Sprintf("%.0f", f)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
