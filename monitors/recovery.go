package monitors

import (
	"math"
	"slices"
)

// Recovery says what a canary on probation has to prove before it is back in
// full: that it fails clearly less than it did. The zero Recovery is none.
type Recovery struct {
	// Test that it was tripped by: what is looked at. One that is not known is
	// taken as errors.
	Test string

	// Quantile of the times to the first byte that was worse, for TestLatency; any
	// other is taken as 0.9.
	Quantile float64

	// Late tells that it was of requests that broke off later, for TestErrors.
	Late bool

	// Excess of the canary's rate of bad requests over the control's, in (0, 1),
	// that has to be refuted.
	Excess float64
}

// proofAt is the logarithm of the evidence that is asked for: a hundred to one.
var proofAt = math.Log(100)

// recovery tests that the canary's share of good requests is (1 − excess) of the
// control's at most, by the same test with good and bad exchanged: evidence
// against that is proof that it is not so much worse. A nil recovery has nothing
// to prove.
type recovery struct {
	Recovery
	proof *proportions
}

func newRecovery(r Recovery) *recovery {
	if !slices.Contains(latencyQuantiles[:], r.Quantile) {
		r.Quantile = 0.9 // of a p99 good and bad are hard to tell apart, and of a p50 half are slow anyway
	}
	proof := newProportions(1-min(max(r.Excess, leastExcess), mostExcess), 0, proofAt/3)
	proof.bad = priorSeen - 2*priorBad // here it counts good ones: most are, to begin with
	return &recovery{r, proof}
}

const (
	leastExcess = 0.005 // to refute less would take thousands of requests
	mostExcess  = 0.5
)

func (r *recovery) erred(s Stratum) {
	if r != nil && r.Test != TestLatency && !r.Late {
		r.proof.add(good(s))
	}
}

func (r *recovery) brokeOff(s Stratum) {
	if r != nil && r.Test != TestLatency && r.Late {
		r.proof.add(good(s))
	}
}

// waited looks at the quantile that was worse.
func (r *recovery) waited(q int, s Stratum) {
	if r != nil && r.Test == TestLatency && latencyQuantiles[q] == r.Quantile {
		r.proof.add(good(s))
	}
}

func good(s Stratum) Stratum { return Stratum{s.N1, s.N1 - s.X1, s.N0, s.N0 - s.X0} }

func (r *recovery) proved() bool { return r != nil && r.proof.logE >= proofAt }
