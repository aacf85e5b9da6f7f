package monitors

import (
	"math"
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

// weightLate is what the test of requests that break off later has of the weight
// of errors.
const weightLate = 0.1

var logNow, logLate = math.Log(1 - weightLate), math.Log(weightLate)

const engagementMargin = 0.05 // of users who do not come back, tolerated

// judge weighs the evidence against a canary: blocks of settled requests go in,
// the logarithm of one e-value comes out. Not safe for concurrent use.
type judge struct {
	tripAt float64 // ln(1/α)

	errors     *proportions // nil: turned off; so are the others
	late       *proportions
	latency    *[len(latencyQuantiles)]*proportions
	arrivals   *arrivals
	engagement *proportions
}

// judgeConfig says what is judged, and what is tolerated.
type judgeConfig struct {
	falseAlarm float64 // α
	errors     bool
	ratio      float64 // of the canary's error rate over the control's, tolerated
	margin     float64 // added to that
	latency    bool
	traffic    bool
}

func newJudge(c judgeConfig) *judge {
	j := &judge{tripAt: math.Log(1 / c.falseAlarm)}
	limit := j.tripAt / 3 // one block alone cannot trip
	if c.errors {
		j.errors = newProportions(c.ratio, c.margin, limit)
		j.late = newProportions(c.ratio, c.margin, limit)
	}
	if c.latency {
		j.latency = new([len(latencyQuantiles)]*proportions)
		for i := range j.latency {
			j.latency[i] = newProportions(1, 0, limit)
		}
	}
	if c.traffic {
		j.arrivals = newArrivals(leastDrop, limit)
		j.engagement = newProportions(1, engagementMargin, limit)
	}
	return j
}

// erred judges requests and the bad ones among them, by strata of one share each.
// The blocks of each test come in the order of their requests' arrival.
func (j *judge) erred(strata ...Stratum) {
	if j.errors != nil {
		j.errors.add(strata...)
	}
}

// brokeOff judges requests that were well when they were judged first, and those
// among them that have failed since.
func (j *judge) brokeOff(s Stratum) {
	if j.late != nil {
		j.late.add(s)
	}
}

// breaksOff tells whether it is rather that requests break off later.
func (j *judge) breaksOff() bool { return j.late != nil && j.late.logE+logLate > j.errors.logE+logNow }

// waited judges requests and the slow ones among them, by the quantile of number
// q.
func (j *judge) waited(q int, s Stratum) {
	if j.latency != nil {
		j.latency[q].add(s)
	}
}

// slowest is the number of the quantile that speaks most against the canary.
func (j *judge) slowest() (most int) {
	if j.latency == nil {
		return most
	}
	for q, t := range j.latency {
		if t.logE > j.latency[most].logE {
			most = q
		}
	}
	return most
}

// came judges the first requests of users, of the canary and of the control,
// where the odds of the canary's share of users are given, and what part of them
// may be missing.
func (j *judge) came(ofCanary, ofControl int64, odds, drop float64) {
	if j.arrivals != nil {
		j.arrivals.tolerate = drop
		j.arrivals.add(ofCanary, ofControl, odds)
	}
}

// engaged judges visits, and those without a second request among them.
func (j *judge) engaged(s Stratum) {
	if j.engagement != nil {
		j.engagement.add(s)
	}
}

// disperse tells by how much errors vary more than chance has it, 1 or more.
func (j *judge) disperse(by float64) {
	if j.errors != nil {
		j.errors.dispersion, j.late.dispersion = by, by
	}
}

// evidence is the judge's opinion: logarithms of e-values, −Inf for none.
type evidence struct {
	errors, latency, arrivals, engagement float64

	served float64 // of how requests are served: errors and latency, as weighted
	whole  float64 // with traffic
}

// evidence sums everything up.
func (j *judge) evidence() evidence {
	none := math.Inf(-1)
	e := evidence{errors: none, latency: none, arrivals: none, engagement: none}
	if j.errors != nil {
		e.errors = logAddExp(j.errors.logE+logNow, j.late.logE+logLate)
	}
	if j.latency != nil {
		for _, t := range j.latency {
			e.latency = logAddExp(e.latency, t.logE-math.Log(float64(len(j.latency))))
		}
	}
	if j.arrivals != nil {
		e.arrivals, e.engagement = j.arrivals.logE, j.engagement.logE
	}
	all := [...]float64{e.errors, e.latency, e.arrivals, e.engagement}
	e.served, e.whole = combine(all[:2], testWeights[:2]), combine(all[:], testWeights[:])
	return e
}

// tests are the names, in the order of weighed.
var tests = [...]string{TestErrors, TestLatency, TestArrivals, TestEngagement}

var testWeights = [...]float64{weightErrors, weightLatency, weightArrivals, weightEngagement}

var logWeights = [...]float64{math.Log(weightErrors), math.Log(weightLatency), math.Log(weightArrivals), math.Log(weightEngagement)}

func (e *evidence) weighed() [len(tests)]float64 {
	return [...]float64{e.errors + logWeights[0], e.latency + logWeights[1], e.arrivals + logWeights[2], e.engagement + logWeights[3]}
}

// leading is the test that weighs most, "" without any evidence.
func (e *evidence) leading(withTraffic bool) (name string) {
	most := math.Inf(-1)
	for i, w := range e.weighed() {
		if w > most && (i < 2 || withTraffic) {
			most, name = w, tests[i]
		}
	}
	return name
}

// slowLimits are times to the first byte above which a request is slow: the
// quantiles of the control's past, and for the canary a tolerated factor more.
// Any limit that depends on the past alone keeps the test's bound. Those of the
// control come first.
type slowLimits [2][len(latencyQuantiles)]time.Duration

// leastPast is how many requests of the control must be known before anything is
// slow: a p99 of fewer says nothing.
const leastPast = 200

// leastPatient is how many must be known before anybody can say how long requests
// may take.
const leastPatient = 10

// patienceAfter is for how long it is worth to wait for requests: twice the p99
// of the control's past; 0 while that is too short.
func patienceAfter(past *sketch) time.Duration {
	if past.count() < leastPatient {
		return 0
	}
	return 2 * past.quantile(latencyQuantiles[len(latencyQuantiles)-1])
}

// newSlowLimits reads the past of the control; nil: it is too short. tolerate is
// a fraction: 0.1 lets the canary be 10 % slower.
func newSlowLimits(past *sketch, tolerate float64) *slowLimits {
	if past.count() < leastPast {
		return nil
	}
	l := new(slowLimits)
	for i, q := range latencyQuantiles {
		l[control][i] = past.quantile(q)
		l[canary][i] = time.Duration(float64(l[control][i]) * (1 + tolerate))
	}
	return l
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

func (s Stratum) minus(o Stratum) Stratum {
	return Stratum{s.N1 - o.N1, s.X1 - o.X1, s.N0 - o.N0, s.X0 - o.X0}
}

// both tells whether requests of both cohorts are in it.
func (s *Stratum) both() bool { return s.N1 > 0 && s.N0 > 0 }
