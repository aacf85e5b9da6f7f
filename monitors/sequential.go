package monitors

import "math"

// detector is an e-detector: a mixture of bets against the null hypothesis,
// each re-seeded as it decays, so that a change is found as quickly after a
// long healthy time as at the start, with one bound on false alarms for all
// time.
//
// With h(1) = ½, h(j) = ½·((j−1)^−0.1 − j^−0.1), which sum to 1, the sum over
// all seeds of h(j) times the bet since that seed is a supermartingale under the
// null that begins at 1 at most; by Ville's inequality it reaches 1/α with a
// chance of α at most. Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric
// framework for sequential change detection", NEJSDS 2 (2024).
type detector struct {
	bets  [mostBets]bet
	n     int     // of them in use
	limit float64 // of a block's log factor: one block alone cannot trip
	logE  float64 // log of the evidence against the null; a trip at ln(1/α)
}

const (
	mostBets = 9
	renewal  = 0.5 // expected decay of a bet's logarithm after which it is seeded anew
)

// bet is one alternative's part of a detector.
type bet struct {
	logR  float64 // log of the sum over its seeds
	decay float64 // expected since the last seed
	seeds int
}

func newDetector(bets int, limit float64) detector {
	d := detector{n: bets, limit: limit}
	for k := range d.bets {
		d.bets[k].logR = math.Inf(-1)
	}
	d.logE = math.Inf(-1)
	return d
}

// add multiplies bet k by a block's factor L. decay is the logarithm that it
// loses in expectation where the null holds at its boundary: a number ≥ 0 that
// depends on exposures, not on outcomes.
func (d *detector) add(k int, decay, logL float64) {
	b := &d.bets[k]
	if b.decay += decay; b.seeds == 0 || b.decay >= renewal {
		b.seeds++
		b.decay = 0
		b.logR = logAddExp(b.logR, logSeed(b.seeds))
	}
	b.logR += min(logL, d.limit)
}

// settle sums the bets up, after all of a block are added.
func (d *detector) settle() {
	most := math.Inf(-1)
	for k := range d.n {
		most = max(most, d.bets[k].logR)
	}
	sum := 0.0
	for k := range d.n {
		sum += math.Exp(d.bets[k].logR - most)
	}
	d.logE = most + math.Log(sum) - math.Log(float64(d.n))
}

// logSeed is log h(j).
func logSeed(j int) float64 {
	if j == 1 {
		return -math.Ln2
	}
	return math.Log(math.Pow(float64(j-1), -0.1)-math.Pow(float64(j), -0.1)) - math.Ln2
}

func logAddExp(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// Stratum counts a block's requests that were split by one share: requests and
// bad ones of the canary, requests and bad ones of the control.
type Stratum struct{ N1, X1, N0, X0 int64 }

// proportions is the one-sided sequential test that the canary's share of bad
// requests is r1 ≤ ρ·r0 + δ, where r0 is unknown and may change from block to
// block. Turner, Ly, Grünwald, "Generic E-variables for exact sequential
// k-sample tests that allow for optional stopping", JSPI 230 (2024).
type proportions struct {
	detector
	ratio, margin float64 // ρ > 0, δ in [0, 1)
	dispersion    float64 // log factors are divided by it; below 1: they are not

	blocks    int
	bad, seen float64 // of the control's past, fading
	r0, r1    float64 // the control's past rate, and the boundary's for the canary
	against   [mostBets]float64
}

// Odds of badness over the boundary, and absolute badness, that are bet on.
var (
	betOdds     = [...]float64{1.1, 1.3, 2, 4, 10, 100}
	betAbsolute = [...]float64{0.05, 0.3, 0.95}
)

const (
	leastOdds    = 1.25 // of an absolute bet over the boundary
	priorBad     = 1
	priorSeen    = 200
	pastHalfLife = 1e6 // control requests
	rereadAfter  = 64  // blocks
)

func newProportions(ratio, margin, limit float64) *proportions {
	return &proportions{detector: newDetector(len(betOdds)+len(betAbsolute), limit), ratio: ratio, margin: margin}
}

// add judges a closed block. Strata add their log factors; one without requests
// of both cohorts says nothing.
func (t *proportions) add(strata ...Stratum) {
	both := false
	for _, s := range strata {
		both = both || s.N1 > 0 && s.N0 > 0
	}
	if both {
		if t.blocks < rereadAfter || t.blocks%rereadAfter == 0 {
			t.reread()
		}
		t.blocks++
		for k := range t.n {
			decay, logL := 0.0, 0.0
			for i := range strata {
				if s := &strata[i]; s.N1 > 0 && s.N0 > 0 {
					d, l := t.factor(s, t.against[k])
					decay += d
					logL += l
				}
			}
			if t.dispersion > 1 {
				decay, logL = decay/t.dispersion, logL/t.dispersion
			}
			t.detector.add(k, decay, logL)
		}
		t.settle()
	}
	for _, s := range strata {
		if s.N1 > 0 && s.N0 > 0 {
			fade := math.Exp2(-float64(s.N0) / pastHalfLife)
			t.bad = t.bad*fade + float64(s.X0)
			t.seen = t.seen*fade + float64(s.N0)
		}
	}
}

// reread takes the control's past into the bets.
func (t *proportions) reread() {
	r0 := min(max((t.bad+priorBad)/(t.seen+priorSeen), 1e-7), 0.98)
	b := min(t.ratio*r0+t.margin, 0.985)
	t.r0, t.r1 = min(r0, (b-t.margin)/t.ratio), b
	for k, o := range betOdds {
		t.against[k] = withOdds(o, b)
	}
	for k, a := range betAbsolute {
		t.against[len(betOdds)+k] = max(a, withOdds(leastOdds, b))
	}
}

// withOdds returns the probability of o times the odds of p.
func withOdds(o, p float64) float64 { return o * p / (1 - p + o*p) }

// factor returns the log factor of a bet on q1 for one stratum, and the decay
// that is expected of it at the boundary.
func (t *proportions) factor(s *Stratum, q1 float64) (decay, logL float64) {
	n1, x1, n0, x0 := float64(s.N1), float64(s.X1), float64(s.N0), float64(s.X0)
	var bad1, good1, bad0, good0 float64
	if t.ratio == 1 && t.margin == 0 {
		m := (n1*q1 + n0*t.r0) / (n1 + n0)
		bad1, good1 = math.Log(q1/m), math.Log((1-q1)/(1-m))
		bad0, good0 = math.Log(t.r0/m), math.Log((1-t.r0)/(1-m))
	} else {
		m := t.boundary(n1, n0, q1)
		u := t.ratio*m + t.margin
		l1 := (q1 - u) / (u * (1 - u))
		l0 := t.ratio * n1 * l1 / n0
		bad1, good1 = math.Log1p(l1*(1-u)), math.Log1p(-l1*u)
		bad0, good0 = math.Log1p(-l0*(1-m)), math.Log1p(l0*m)
	}
	logL = x1*bad1 + (n1-x1)*good1 + x0*bad0 + (n0-x0)*good0
	decay = -(n1*(t.r1*bad1+(1-t.r1)*good1) + n0*(t.r0*bad0+(1-t.r0)*good0))
	return decay, logL
}

// boundary solves ρ·n1·(q1−u)/(u(1−u)) = n0·(m−q0)/(m(1−m)), u = ρm + δ, for
// the one m in (q0, (q1−δ)/ρ): a cubic, by Newton's method kept within bounds
// that close.
func (t *proportions) boundary(n1, n0, q1 float64) float64 {
	lo, hi := t.r0, (q1-t.margin)/t.ratio
	m := (n1*hi + n0*lo) / (n1 + n0)
	for range 64 {
		u := t.ratio*m + t.margin
		f := t.ratio*n1*(q1-u)*m*(1-m) - n0*(m-t.r0)*u*(1-u)
		if f > 0 {
			lo = m
		} else {
			hi = m
		}
		slope := t.ratio*n1*((q1-u)*(1-2*m)-t.ratio*m*(1-m)) - n0*(u*(1-u)+(m-t.r0)*t.ratio*(1-2*u))
		next := m - f/slope
		if !(next > lo && next < hi) {
			next = lo + (hi-lo)/2
		}
		if math.Abs(next-m) <= 1e-15*m {
			return next
		}
		m = next
	}
	return m
}

// arrivals is the one-sided sequential test that the canary's users do not stop
// coming: that a share π = 1/(1+(1−τ)·p/(1−p)) at most of the arrivals is the
// control's, where p is the canary's share of users and τ the drop tolerated.
// Lindon, Malek, "Anytime-valid inference for multinomial count data", NeurIPS
// 2022: given their sum, arrivals of two Poisson streams are binomial.
type arrivals struct {
	detector
	tolerate float64 // τ
}

// Factors of a drop that are bet on.
var betDrops = [...]float64{1.1, 1.3, 2, 4, 20}

func newArrivals(tolerate, limit float64) *arrivals {
	return &arrivals{detector: newDetector(len(betDrops), limit), tolerate: tolerate}
}

// add judges the arrivals of a block: a1 of the canary, a0 of the control; odds
// are those of the canary's share, p/(1−p).
func (t *arrivals) add(a1, a0 int64, odds float64) {
	if a1+a0 == 0 {
		return
	}
	share := 1 / (1 + (1-t.tolerate)*odds)
	for k, w := range betDrops {
		z := 1 + share*(w-1)
		came, gone := -math.Log(z), math.Log(w/z)
		logL := float64(a0)*gone + float64(a1)*came
		t.detector.add(k, -float64(a0+a1)*(share*gone+(1-share)*came), logL)
	}
	t.settle()
}

// combine weighs the evidence of several tests: a mean of e-values is one.
func combine(logE, weights []float64) float64 {
	total := math.Inf(-1)
	for i, e := range logE {
		total = logAddExp(total, e+math.Log(weights[i]))
	}
	return total
}
