package monitors

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// crowdOf is traffic for a rehearsal: of the canary and of the control, what
// fails, and how many times slower than usual the answers begin.
type crowdOf struct {
	canary, control         int // requests in a tenth of a second
	badCanary, badControl   float64
	slowCanary, slowControl float64 // 0: as usual
	regulars                [2]int  // users of the control and of the canary who come again and again; 0: strangers all
}

// rehearsal plays traffic through a guard.
type rehearsal struct {
	*testing.T
	g      *Guard
	rng    *rand.Rand
	ticks  int
	number int64 // of the epoch
}

func rehearse(t *testing.T, change func(*GuardConfig)) *rehearsal {
	c := defaultGuard()
	c.Share = 0.2
	if change != nil {
		change(&c)
	}
	return &rehearsal{T: t, g: NewGuard(epoch, c), rng: rand.New(rand.NewPCG(1, 14))}
}

func (r *rehearsal) now() time.Time { return at(time.Duration(r.ticks) * blockLength) }

// tick is a tenth of a second.
func (r *rehearsal) tick(c crowdOf) Verdict {
	r.Helper()
	r.ticks++
	r.some(canary, c.canary, c.badCanary, c.slowCanary, c.regulars[canary])
	r.some(control, c.control, c.badControl, c.slowControl, c.regulars[control])
	v := r.g.Tick(r.now())
	if v.Kind == Trip {
		r.Fatalf("after %v: tripped: %s", r.now().Sub(epoch), r.g.Evidence(r.now()).Summary)
	}
	return v
}

func (r *rehearsal) some(of cohort, n int, failing, slower float64, regulars int) {
	for range n {
		user := r.rng.Uint64()
		if regulars > 0 {
			user = mix(uint64(r.rng.IntN(regulars))*2 + uint64(of))
		}
		wait := 50e6 * math.Exp(0.6*r.rng.NormFloat64())
		if slower > 0 {
			wait *= slower
		}
		o := &Outcome{Class: OK, Answered: true, FirstByte: time.Duration(wait)}
		if r.rng.Float64() < failing {
			o.Class = Failed
		}
		q := r.g.Arrive(r.number, of == canary, user)
		q.FirstByte(o.FirstByte)
		q.End(r.now(), o)
	}
}

// stays plays traffic for a time in which nothing but reason must be told.
func (r *rehearsal) stays(reason string, length time.Duration, c crowdOf) {
	r.Helper()
	for range length / blockLength {
		if v := r.tick(c); v.Reason != reason {
			r.Fatalf("after %v: told %q, want %q", r.now().Sub(epoch), v.Reason, reason)
		}
	}
}

// becomes plays traffic until reason is told, which must take from least to
// most.
func (r *rehearsal) becomes(reason string, least, most time.Duration, c crowdOf) {
	r.Helper()
	for begun := r.ticks; ; {
		v := r.tick(c)
		took := time.Duration(r.ticks-begun) * blockLength
		if v.Reason == reason && (v.Kind == Hold) == (reason != "") {
			if took < least {
				r.Errorf("%q told after %v already, want %v at least", reason, took, least)
			}
			r.Logf("%q after %v", reason, took)
			return
		}
		if took > most {
			r.Fatalf("%q not told within %v, but %q", reason, most, v.Reason)
		}
	}
}

// warm plays traffic until nothing is to be told any more.
func (r *rehearsal) warm(c crowdOf) {
	r.Helper()
	r.becomes(HoldWarmUp, 0, second, c)
	r.becomes("", 58*second, 60*second, c)
}

const second = time.Second

func TestHoldWarmUp(t *testing.T) {
	r := rehearse(t, nil)
	r.warm(crowdOf{canary: 2, control: 8})
	r.stays("", 10*time.Minute, crowdOf{canary: 2, control: 8})

	// It begins with the canary's first request.
	r = rehearse(t, func(c *GuardConfig) { c.WarmUp = 20 * second })
	r.becomes(HoldWarmUp, 0, second, crowdOf{control: 8})
	r.stays(HoldWarmUp, 2*time.Minute, crowdOf{control: 8})
	r.stays(HoldWarmUp, 20*second, crowdOf{canary: 2, control: 8})
	r.becomes("", 0, 2*second, crowdOf{})
}

func TestHoldSilence(t *testing.T) {
	both := crowdOf{canary: 2, control: 8}
	for name, c := range map[string]crowdOf{"nobody": {}, "nobody in the canary": {control: 8}, "nobody in the control": {canary: 2}} {
		t.Run(name, func(t *testing.T) {
			r := rehearse(t, func(c *GuardConfig) { c.Traffic = TrafficOff })
			r.warm(both)
			r.stays("", 2*time.Minute, both)
			r.becomes(HoldSilence, 59*second, 71*second, c)
			r.stays(HoldSilence, time.Hour, c)
			r.becomes("", 0, 2*second, both)
			r.stays("", 55*second, c)
		})
	}
	// Where few come, a minute without any is nothing.
	r := rehearse(t, nil)
	r.warm(both)
	r.stays("", 50*second, crowdOf{})
	for range 20 {
		r.stays("", blockLength, crowdOf{canary: 1, control: 1})
		r.stays("", time.Minute, crowdOf{})
	}
	r.becomes(HoldSilence, 239*second, 251*second, crowdOf{})
	r.becomes("", 0, 2*second, crowdOf{canary: 1, control: 1})
}

func TestHoldControl(t *testing.T) {
	well := crowdOf{canary: 2, control: 8, badCanary: 0.01, badControl: 0.01}
	down := crowdOf{canary: 2, control: 8, badCanary: 0.4, badControl: 0.4}
	r := rehearse(t, nil)
	r.warm(well)
	r.stays("", 5*time.Minute, well)
	r.becomes(HoldControl, 0, 5*second, down)
	r.stays(HoldControl, 20*time.Minute, down)
	r.becomes("", 5*second, 25*second, well)
	r.stays("", 5*time.Minute, well)
	// Twice as much is nothing to speak of.
	r.stays("", 5*time.Minute, crowdOf{canary: 2, control: 8, badCanary: 0.02, badControl: 0.02})
	// Nor is what has always been so.
	r = rehearse(t, nil)
	r.warm(down)
	r.stays("", 5*time.Minute, down)
}

// An outage is not what is usual, however little is known of that, and wherever in a
// second it begins.
func TestHoldControlOfAYoungGuard(t *testing.T) {
	down := crowdOf{canary: 10, control: 40, badCanary: 0.4, badControl: 0.4}
	for _, age := range []time.Duration{4 * second, 10 * second, 20 * second, 45 * second} {
		for tenths := range time.Duration(10) {
			r := rehearse(t, nil)
			r.becomes(HoldWarmUp, 0, second, crowdOf{canary: 10, control: 40})
			r.stays(HoldWarmUp, age+tenths*blockLength, crowdOf{canary: 10, control: 40})
			r.becomes(HoldControl, 0, 5*second, down)
			r.stays(HoldControl, 5*second, down)
		}
	}
}

func TestHoldSlow(t *testing.T) {
	well := crowdOf{canary: 2, control: 8}
	slow := crowdOf{canary: 2, control: 8, slowCanary: 3, slowControl: 3}
	r := rehearse(t, nil)
	r.warm(well)
	r.stays("", 5*time.Minute, well)
	r.becomes(HoldSlow, second, 15*second, slow)
	r.stays(HoldSlow, 20*second, slow)
	r.becomes("", 5*second, 25*second, well)
	r.stays("", 3*time.Minute, well)
	// What lasts becomes usual.
	r.becomes(HoldSlow, second, 15*second, slow)
	r.becomes("", time.Minute, 5*time.Minute, slow)
	r.stays("", 5*time.Minute, slow)

	r = rehearse(t, func(c *GuardConfig) { c.Latency = false })
	r.warm(well)
	r.stays("", 5*time.Minute, well)
	r.stays("", time.Minute, slow)
}

func TestHoldTraffic(t *testing.T) {
	regulars := [2]int{200, 200}
	well := crowdOf{canary: 4, control: 16, regulars: regulars}
	half := crowdOf{canary: 4, control: 12, regulars: regulars} // fewer come to both
	fewer := crowdOf{canary: 1, control: 16, regulars: regulars}
	gone := crowdOf{control: 16, regulars: regulars}
	for name, c := range map[string]crowdOf{"fewer": fewer, "gone": gone} {
		t.Run(name, func(t *testing.T) {
			r := rehearse(t, nil)
			r.warm(well)
			r.stays("", 5*time.Minute, well)
			r.stays("", 5*time.Minute, half)
			r.becomes(HoldTraffic, 5*second, 40*second, c)
			r.stays(HoldTraffic, 30*time.Minute, c)
			r.becomes("", 5*second, 40*second, half)
			r.stays("", 5*time.Minute, half)
		})
	}
	// Nothing is told of what nobody asked to watch.
	r := rehearse(t, func(c *GuardConfig) { c.Traffic = TrafficOff })
	r.warm(well)
	r.stays("", 5*time.Minute, well)
	r.stays("", 5*time.Minute, fewer)
}

// Users who stop coming are missed, though those who come make as many requests.
func TestHoldArrivals(t *testing.T) {
	all := crowdOf{canary: 5, control: 5}
	fewer := crowdOf{canary: 5, control: 5, regulars: [2]int{canary: 200}}
	r := rehearse(t, func(c *GuardConfig) { c.Share = 0.5 })
	r.warm(all)
	r.stays("", 5*time.Minute, all)
	r.becomes(HoldTraffic, second, 3*time.Minute, fewer)
	r.becomes("", second, 3*time.Minute, all)
}

func TestHoldEvidence(t *testing.T) {
	// No number of users is enough for a trip: evidence is all there can be.
	r := rehearse(t, func(c *GuardConfig) { c.MinUsers = math.MaxInt })
	well := crowdOf{canary: 2, control: 8}
	r.warm(well)
	r.stays("", 10*time.Minute, well)
	r.becomes(HoldEvidence, 0, 10*second, crowdOf{canary: 2, control: 8, badCanary: 0.3})
	if w := r.g.weight(); w < math.Log(20) || w > r.g.judge.tripAt {
		t.Errorf("log E %v", w)
	}
	r.becomes("", second, 10*time.Minute, well)
	r.stays("", 5*time.Minute, well)
}

// The most telling of several reasons is told.
func TestHoldPrecedence(t *testing.T) {
	r := rehearse(t, func(c *GuardConfig) { c.MinUsers = math.MaxInt })
	c := crowdOf{canary: 2, control: 8}
	r.warm(c)
	r.stays("", 5*time.Minute, c)
	c.badCanary = 0.3
	r.becomes(HoldEvidence, 0, 10*second, c)
	r.stays(HoldEvidence, 10*second, c)
	r.stays(HoldEvidence, 6*time.Minute, crowdOf{}) // over silence
	c.slowCanary, c.slowControl = 4, 4
	r.becomes(HoldSlow, 0, 15*second, c)
	c.badControl = 0.3
	r.becomes(HoldControl, 0, 15*second, c)
	if !r.g.watch.slow {
		t.Error("the control is not slow any more")
	}
	r.stays(HoldControl, 30*second, c)
	c.canary = 0
	r.becomes(HoldTraffic, 0, time.Minute, c)
	if !r.g.watch.failing() {
		t.Error("the control does not fail any more")
	}

	// Silence goes before warming up.
	r = rehearse(t, func(c *GuardConfig) { c.WarmUp = 10 * time.Minute })
	r.becomes(HoldWarmUp, 0, second, crowdOf{canary: 2, control: 8})
	r.becomes(HoldSilence, 59*second, 311*second, crowdOf{})
	r.becomes(HoldWarmUp, 0, 2*second, crowdOf{canary: 2, control: 8})
}

// Another percentage is no drop of the traffic.
func TestHoldOverEpochs(t *testing.T) {
	few, half := crowdOf{canary: 1, control: 19}, crowdOf{canary: 10, control: 10}
	change := func(share float64) func(*GuardConfig) {
		return func(c *GuardConfig) { c.Share, c.Traffic = share, TrafficTrip }
	}
	t.Run("down", func(t *testing.T) {
		r := rehearse(t, change(0.5))
		r.warm(half)
		r.stays("", 10*time.Minute, half)
		r.number = r.g.NextEpoch(r.now(), 0.05)
		r.stays("", 10*time.Minute, few)
	})
	t.Run("up", func(t *testing.T) {
		r := rehearse(t, change(0.05))
		r.warm(few)
		r.stays("", 10*time.Minute, few)
		r.number = r.g.NextEpoch(r.now(), 0.5)
		r.stays("", 10*time.Minute, half)
	})
	t.Run("up while blocks wait", func(t *testing.T) {
		r := rehearse(t, change(0.05))
		r.becomes(HoldWarmUp, 0, second, few)
		r.stays(HoldWarmUp, 30*second, few)
		late := r.g.Arrive(r.number, false, 1) // its block waits for it, and so do the next ones
		r.stays(HoldWarmUp, 9*second, few)
		r.number = r.g.NextEpoch(r.now(), 0.5)
		r.stays(HoldWarmUp, 10*second, half)
		late.End(r.now(), good200)
	})
	t.Run("down while blocks wait", func(t *testing.T) {
		r := rehearse(t, change(0.5))
		r.becomes(HoldWarmUp, 0, second, half)
		r.stays(HoldWarmUp, 30*second, half)
		late := r.g.Arrive(r.number, false, 1)
		r.stays(HoldWarmUp, 9*second, half)
		r.number = r.g.NextEpoch(r.now(), 0.05)
		r.becomes("", 15*second, 22*second, few)
		r.stays("", 10*time.Minute, few)
		late.End(r.now(), good200)
	})
}
