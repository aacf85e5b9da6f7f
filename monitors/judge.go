package monitors

import (
	"math"
	"sync/atomic"
	"time"
)

// Names of the guard's tests, as `tripped:NAME`, evidence and metrics say them;
// TestErrors is the founding monitor's name, too.
const (
	TestLatency    = "latency"
	TestArrivals   = "arrivals"
	TestEngagement = "engagement"
)

// latencyQuantiles of the control's past traffic are what is slow for the
// latency tests.
var latencyQuantiles = [...]float64{0.5, 0.9, 0.99}

// Weights of the tests in the whole. A weighted mean of e-values is an e-value:
// the bound on false alarms holds for all of them together.
const (
	weightErrors     = 0.5
	weightLatency    = 0.3 // shared by the three quantiles
	weightArrivals   = 0.1
	weightEngagement = 0.1
)

const engagementMargin = 0.05 // of users who do not come back, tolerated

// judge weighs the evidence against a canary: blocks of settled requests go in,
// the logarithm of one e-value comes out. Not safe for concurrent use.
type judge struct {
	tripAt float64 // ln(1/α)

	errors     *proportions // nil: turned off; so are the others
	latency    *[len(latencyQuantiles)]*proportions
	arrivals   *arrivals
	engagement *proportions
}

// judgeConfig says what is judged, and what is tolerated.
type judgeConfig struct {
	falseAlarm   float64 // α
	errors       bool
	ratio        float64 // of the canary's error rate over the control's, tolerated
	margin       float64 // added to that
	latency      bool
	traffic      bool
	arrivalsDrop float64 // share of the canary's arrivals that may be missing
}

func newJudge(c judgeConfig) *judge {
	j := &judge{tripAt: math.Log(1 / c.falseAlarm)}
	limit := j.tripAt / 3 // one block alone cannot trip
	if c.errors {
		j.errors = newProportions(c.ratio, c.margin, limit)
	}
	if c.latency {
		j.latency = new([len(latencyQuantiles)]*proportions)
		for i := range j.latency {
			j.latency[i] = newProportions(1, 0, limit)
		}
	}
	if c.traffic {
		j.arrivals = newArrivals(c.arrivalsDrop, limit)
		j.engagement = newProportions(1, engagementMargin, limit)
	}
	return j
}

// settledBlock is what a block of arrivals came to. What a test is not to see, a
// cohort that warms up for one, has no requests in its strata.
type settledBlock struct {
	errors     []Stratum // by share
	latency    [len(latencyQuantiles)]Stratum
	arrivals   [2]int64 // first requests of users, of the canary and of the control
	odds       float64  // of the canary's share of users
	engagement Stratum  // users who did not come back
}

// add judges a block. The blocks come in the order of their requests' arrival.
func (j *judge) add(b *settledBlock) {
	if j.errors != nil {
		j.errors.add(b.errors...)
	}
	if j.latency != nil {
		for i, t := range j.latency {
			t.add(b.latency[i])
		}
	}
	if j.arrivals != nil {
		j.arrivals.add(b.arrivals[0], b.arrivals[1], b.odds)
		j.engagement.add(b.engagement)
	}
}

// evidence is the judge's opinion: logarithms of e-values, −Inf for none.
type evidence struct {
	errors, latency, arrivals, engagement float64

	served  float64 // of how requests are served: errors and latency, as weighted
	whole   float64 // with traffic
	leading string  // the test that weighs most; "" without any evidence
}

// evidence sums everything up.
func (j *judge) evidence() evidence {
	none := math.Inf(-1)
	e := evidence{errors: none, latency: none, arrivals: none, engagement: none}
	if j.errors != nil {
		e.errors = j.errors.logE
	}
	if j.latency != nil {
		for _, t := range j.latency {
			e.latency = logAddExp(e.latency, t.logE-math.Log(float64(len(j.latency))))
		}
	}
	if j.arrivals != nil {
		e.arrivals, e.engagement = j.arrivals.logE, j.engagement.logE
	}
	most := none
	for i, term := range []struct {
		name   string
		logE   float64
		weight float64
	}{
		{TestErrors, e.errors, weightErrors},
		{TestLatency, e.latency, weightLatency},
		{TestArrivals, e.arrivals, weightArrivals},
		{TestEngagement, e.engagement, weightEngagement},
	} {
		weighed := term.logE + math.Log(term.weight)
		if i == 0 {
			e.whole = weighed
		} else {
			e.whole = logAddExp(e.whole, weighed)
		}
		if i == 1 {
			e.served = e.whole
		}
		if weighed > most {
			most, e.leading = weighed, term.name
		}
	}
	return e
}

// slowness decides what is slow: the quantiles of the control's past, read now
// and then, and for the canary a tolerated factor more. Any threshold that
// depends on the past alone keeps the test's bound. Safe for concurrent use but
// for reread.
type slowness struct {
	past   sketch // of the control
	limits atomic.Pointer[slowLimits]
}

// slowLimits are times to the first byte, by quantile; those of the control
// first.
type slowLimits [2][len(latencyQuantiles)]time.Duration

// leastPast is how many requests of the control must be known before anything is
// slow: a p99 of fewer says nothing.
const leastPast = 200

// reread takes the past into the limits; call it once a minute. tolerate is a
// fraction: 0.1 lets the canary be 10 % slower.
func (s *slowness) reread(tolerate float64) {
	if s.past.count() < leastPast {
		return
	}
	l := new(slowLimits)
	for i, q := range latencyQuantiles {
		l[control][i] = s.past.quantile(q)
		l[canary][i] = time.Duration(float64(l[control][i]) * (1 + tolerate))
	}
	s.limits.Store(l)
	s.past.fade()
}

// slow tells for each quantile whether a time to the first byte is slow; known
// is false while nobody can say.
func (s *slowness) slow(of cohort, wait time.Duration) (slow [len(latencyQuantiles)]bool, known bool) {
	l := s.limits.Load()
	if l == nil {
		return slow, false
	}
	for i, limit := range l[of] {
		slow[i] = wait > limit
	}
	return slow, true
}

// cohort is one of the two that are compared.
type cohort uint8

const (
	control cohort = iota
	canary
)

func cohortOf(isCanary bool) cohort {
	if isCanary {
		return canary
	}
	return control
}

// of returns a cohort's counts: its requests, and the bad ones.
func (s *Stratum) of(c cohort) (n, x *int64) {
	if c == canary {
		return &s.N1, &s.X1
	}
	return &s.N0, &s.X0
}

// add counts a request of a cohort.
func (s *Stratum) add(of cohort, bad bool) {
	n, x := s.of(of)
	*n++
	if bad {
		*x++
	}
}

// plus adds another block's counts.
func (s *Stratum) plus(o Stratum) {
	*s = Stratum{s.N1 + o.N1, s.X1 + o.X1, s.N0 + o.N0, s.X0 + o.X0}
}

// both tells whether requests of both cohorts are in it.
func (s *Stratum) both() bool { return s.N1 > 0 && s.N0 > 0 }
