package monitors

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Thresholds are the founding monitors of one flag. The zero Thresholds watch
// nothing.
type Thresholds struct {
	Errors *int64 // trip after more than this many errors of the canary

	Baseline time.Duration // to the first byte; 0: no watch on slowness
	Slow     int64         // trip after more than this many canary requests slower than Baseline

	TrafficDrop float64 // per cent; 0: no watch on traffic
}

// Names of the tests that trip, as `tripped:NAME` and evidence say them.
const (
	TestErrors      = "errors"
	TestPerformance = "performance"
	TestTraffic     = "traffic"
)

// Evidence says why a flag was tripped. It holds no identity.
type Evidence struct {
	Test    string          `json:"test"`
	Summary string          `json:"summary"` // in words
	Since   time.Time       `json:"since"`   // when the flag was armed
	Limit   float64         `json:"limit"`   // the threshold that was passed
	Found   float64         `json:"found"`   // what was counted against it
	Canary  CohortEvidence  `json:"canary"`
	Control CohortEvidence  `json:"control"`
	Last    []FailedRequest `json:"last_failing,omitempty"` // newest last
	Guard   *GuardEvidence  `json:"guard,omitempty"`        // of a comparison of canary and control
	Mirror  *MirrorFigures  `json:"mirror,omitempty"`       // of copies of requests, where there were any
}

// GuardEvidence is what a comparison of canary and control adds: there the limit
// and what was found are e-values, one in so many by chance, and the cohorts'
// counts are those since nothing spoke against the canary.
type GuardEvidence struct {
	From  time.Time `json:"from"`  // since when the counts are
	LogE  float64   `json:"log_e"` // natural logarithm of what was found
	Users int       `json:"users"` // of the canary, who met an error
	Share float64   `json:"share"` // of the users whom the split puts into the canary, per cent
	Epoch int64     `json:"epoch"`
	Trial int       `json:"trial,omitempty"` // of the detector

	// Quantile of the times to the first byte that speaks most against the canary,
	// for TestLatency; 0 for others.
	Quantile float64 `json:"quantile,omitempty"`

	// Late tells that it is of requests that broke off a while after their answer
	// had begun, for TestErrors.
	Late bool `json:"late,omitempty"`
}

// CohortEvidence are one cohort's counts since the flag was armed.
type CohortEvidence struct {
	Requests int64 `json:"requests"`
	Errors   int64 `json:"errors"`
	Slow     int64 `json:"slow,omitempty"`
}

// cohorts are both cohorts' counts.
type cohorts struct{ canary, control CohortEvidence }

// FailedRequest is one request that counted against the canary.
type FailedRequest struct {
	ID        string    `json:"id,omitempty"`
	At        time.Time `json:"at"`
	Status    int       `json:"status,omitempty"`
	FirstByte float64   `json:"first_byte,omitempty"` // seconds
	Why       string    `json:"why"`
}

// keptRequests bounds the failing requests that evidence shows.
const keptRequests = 8

// Any tells whether anything is watched: only then a flag's requests are
// followed one by one.
func (t Thresholds) Any() bool { return t.Errors != nil || t.Baseline > 0 || t.TrafficDrop > 0 }

// watch counts from one arming of a flag to its trip or the next arming:
// requests of an earlier arming end in the watch they began in, which nobody
// looks at any more.
type watch struct {
	since time.Time
	done  atomic.Bool // tripped: the first one to notice acts

	limits  atomic.Pointer[Thresholds]
	ring    atomic.Pointer[waiting] // nil while nobody watches for slowness
	retired atomic.Pointer[retired] // ring of the baseline before; nil when all in it is settled

	errors, slow atomic.Int64
	before       cohorts // counted before it began
	counted      func() cohorts
	mu           sync.Mutex
	last         []FailedRequest
}

// retired is a ring in which nobody arrives any more.
type retired struct {
	*waiting
	until time.Time // all in it is settled by then
}

func (w *watch) keep(r FailedRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.last) == keptRequests {
		copy(w.last, w.last[1:])
		w.last = w.last[:keptRequests-1]
	}
	w.last = append(w.last, r)
}

// cohorts are the counts since the watch began. Errors and slow requests of
// the canary are the watch's own, so that they agree with the verdict.
func (w *watch) cohorts() (canary, control CohortEvidence) {
	now := w.counted()
	canary = CohortEvidence{Requests: now.canary.Requests - w.before.canary.Requests, Errors: w.errors.Load(), Slow: w.slow.Load()}
	control = CohortEvidence{Requests: now.control.Requests - w.before.control.Requests, Errors: now.control.Errors - w.before.control.Errors}
	return canary, control
}

// evidence is built by the one that set done.
func (w *watch) evidence(test string, limit, found float64, summary string) *Evidence {
	w.mu.Lock()
	last := append([]FailedRequest(nil), w.last...)
	w.mu.Unlock()
	e := &Evidence{Test: test, Summary: summary, Since: w.since, Limit: limit, Found: found, Last: last}
	e.Canary, e.Control = w.cohorts()
	return e
}

// countError adds one error of the canary; non-nil evidence is a verdict.
func (w *watch) countError() *Evidence {
	n := w.errors.Add(1)
	limit := w.limits.Load().Errors
	if limit == nil || n <= *limit || !w.done.CompareAndSwap(false, true) {
		return nil
	}
	canary, control := w.cohorts()
	return w.evidence(TestErrors, float64(*limit), float64(n),
		fmt.Sprintf("%d canary requests failed of %d since it was armed, more than error_threshold %d; control: %d of %d",
			n, canary.Requests, *limit, control.Errors, control.Requests))
}

// countSlow adds n slow requests of the canary.
func (w *watch) countSlow(n int64) *Evidence {
	if n == 0 {
		return nil
	}
	limits := w.limits.Load()
	found := w.slow.Add(n)
	if limits.Baseline == 0 || found <= limits.Slow || !w.done.CompareAndSwap(false, true) {
		return nil
	}
	return w.evidence(TestPerformance, float64(limits.Slow), float64(found),
		fmt.Sprintf("%d canary requests took longer than performance_baseline %s to their first byte, more than performance_threshold %d",
			found, limits.Baseline, limits.Slow))
}
