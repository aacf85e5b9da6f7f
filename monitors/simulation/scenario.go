package simulation

import (
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Scenario is traffic of two versions of a service, of which the canary may be
// bad. What is left out is as in most: 100 requests a second of 2,000 users, some
// of whom come much more often than others, a tenth of them in the canary for
// good; one request in a thousand fails; times to the first byte are lognormal
// with a median of 50 ms and σ 0.6; and what happens begins after a minute.
type Scenario struct {
	ID      string // a short name
	Summary string

	Want   monitors.VerdictKind // that it should come to
	Hold   string               // reason to hold that should be told meanwhile; "": none is asked for
	Budget Budget

	Length time.Duration // 0: an hour
	Onset  time.Duration // 0: a minute

	perSecond float64
	share     float64
	users     int
	nobody    bool // requests without a user
	bot       float64
	retries   int                                                // of who got an error
	rate      func(at time.Duration) float64                     // times perSecond; nil: always 1
	comes     func(at time.Duration, user int, canary bool) bool // nil: everybody
	respond   func(rng *rand.Rand, q *simulated)
}

// Budget is what a verdict may take, or how often it may be wrong. Zero fields
// ask for nothing.
type Budget struct {
	Delay    time.Duration // median after the onset
	Failures int64         // of the canary until then, median
	False    float64       // share of runs that may trip where the verdict is not trip
}

// simulated is one request in the making.
type simulated struct {
	at     time.Duration
	user   int
	canary bool
	bot    bool
	again  bool // a retry of what failed
	bad    bool
	gone   bool
	status int           // 0: 200, or 500 where it is bad
	wait   time.Duration // to the first byte; negative: never
	body   time.Duration // after it
}

const (
	never = time.Duration(-1)
	botID = -1
)

// Length of the traffic.
func (s *Scenario) length() time.Duration {
	if s.Length == 0 {
		return time.Hour
	}
	return s.Length
}

// OnsetAt is when what happens begins.
func (s *Scenario) OnsetAt() time.Duration {
	if s.Onset == 0 {
		return time.Minute
	}
	return s.Onset
}

// Share of the users in the canary, in (0, 1).
func (s *Scenario) Share() float64 {
	if s.share == 0 {
		return 0.1
	}
	return s.share
}

// Requests makes the traffic in order of arrival; the same for the same seed.
func (s *Scenario) Requests(seed uint64) iter.Seq[Request] {
	return func(yield func(Request) bool) {
		rng := rand.New(rand.NewPCG(seed, 7))
		perSecond, share, users := s.perSecond, s.Share(), s.users
		if perSecond == 0 {
			perSecond = 100
		}
		if users == 0 {
			users = 2000
		}
		reach := make([]float64, users) // cumulative activity
		total := 0.0
		for i := range reach {
			total += math.Pow(float64(i)+3, -0.6)
			reach[i] = total
		}
		var again []simulated // retries, in their order
		next := s.gap(rng, perSecond, 0)
		for {
			q := simulated{at: next}
			if len(again) > 0 && again[0].at <= next {
				q, again = again[0], again[1:]
			} else {
				next += s.gap(rng, perSecond, next)
				q.user = search(reach, rng.Float64()*total)
				q.canary = unit(seed, uint64(q.user)) < share
				if s.bot > 0 && rng.Float64() < s.bot {
					q.user, q.bot, q.canary = botID, true, true
				}
				if s.comes != nil && !s.comes(q.at, q.user, q.canary) {
					continue
				}
			}
			if q.at >= s.length() {
				return
			}
			retry := q
			q.wait = time.Duration(50e6 * math.Exp(0.6*rng.NormFloat64()))
			q.bad = rng.Float64() < 0.001
			if s.respond != nil {
				s.respond(rng, &q)
			}
			q.bad = q.bad || q.again
			if q.bad && !q.again && s.retries > 0 && len(again) < 1000 {
				// Clients try again at once, and the same request fails again.
				retry.again = true
				for i := range rng.IntN(s.retries + 1) {
					retry.at = q.at + time.Duration(i+1)*time.Second/5
					again = insert(again, retry)
				}
			}
			if !yield(q.request(s.nobody)) {
				return
			}
		}
	}
}

func insert(list []simulated, q simulated) []simulated {
	i := len(list)
	for i > 0 && list[i-1].at > q.at {
		i--
	}
	return append(list[:i], append([]simulated{q}, list[i:]...)...)
}

func (s *Scenario) gap(rng *rand.Rand, perSecond float64, at time.Duration) time.Duration {
	if s.rate != nil {
		perSecond *= max(s.rate(at), 1e-3)
	}
	return time.Duration(rng.ExpFloat64() / perSecond * 1e9)
}

func search(reach []float64, x float64) int {
	lo, hi := 0, len(reach)-1
	for lo < hi {
		if mid := (lo + hi) / 2; reach[mid] < x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// unit is a number in [0, 1) that belongs to a pair for good.
func unit(a, b uint64) float64 { return rand.New(rand.NewPCG(a, b^0x9e3779b97f4a7c15)).Float64() }

func (q *simulated) request(nobody bool) Request {
	out := Request{T: q.at.Seconds(), Canary: q.canary, Outcome: OK, Status: 200}
	if !nobody {
		out.User = "u" + strconv.Itoa(q.user)
		if q.bot {
			out.User = "bot"
		}
	}
	seconds := func(d time.Duration) *float64 { f := d.Seconds(); return &f }
	if q.wait < 0 {
		out.Outcome, out.Status = Unfinished, 0
		return out
	}
	out.FirstByte, out.Duration = seconds(q.wait), seconds(q.wait+q.body)
	switch {
	case q.gone:
		out.Outcome, out.Status = ClientGone, 0
	case q.bad && q.status == 200 && q.body > 0:
		out.Outcome = Aborted
	case q.bad:
		out.Outcome, out.Status = Error, 500
		if q.status != 0 {
			out.Status = q.status
		}
	}
	return out
}

// Find returns the scenario of an id, in any case, or nil.
func Find(id string) *Scenario {
	for i, s := range Scenarios {
		if strings.EqualFold(s.ID, id) {
			return &Scenarios[i]
		}
	}
	return nil
}
