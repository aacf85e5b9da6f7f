package monitors

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// fed is a guard that has seen traffic of so many ticks.
func fed(g *Guard, from, ticks int, failing float64) {
	rng := rand.New(rand.NewPCG(uint64(from), 9))
	for tick := from; tick < from+ticks; tick++ {
		now := at(time.Duration(tick+1) * blockLength)
		for i := range 10 {
			o := *good200
			if o.FirstByte = time.Duration(50e6 * math.Exp(0.6*rng.NormFloat64())); i < 2 && rng.Float64() < failing {
				o = *bad500
			}
			q := g.Arrive(g.Epoch(), i < 2, splitMixed())
			q.FirstByte(o.FirstByte)
			q.End(now, &o)
		}
		g.Tick(now)
	}
}

// Evidence goes on where it was.
func TestSavedGuardGoesOn(t *testing.T) {
	for _, recovery := range []Recovery{{}, {Test: TestErrors, Excess: 0.3}} {
		c := defaultGuard()
		c.Recovery = recovery
		g := NewGuard(epoch, c)
		fed(g, 0, 1500, 0)
		text, err := json.Marshal(g.Save())
		if err != nil {
			t.Fatal(err)
		}
		again, err := RestoreGuard(at(time.Hour), c, text)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := g.judge.evidence(), again.judge.evidence(); a != b || math.IsInf(a.errors, -1) || math.IsInf(a.latency, -1) {
			t.Errorf("evidence %+v, restored %+v", a, b)
		}
		a, b := g.Status(at(time.Hour)), again.Status(at(time.Hour))
		if a.Canary.Requests != b.Canary.Requests || a.Control.Bad != b.Control.Bad || a.Canary.Judged != b.Canary.Judged || !b.Since.Equal(a.Since) || len(b.Slow) != 3 {
			t.Errorf("%+v, restored %+v", a, b)
		}
		if recovery.Test != "" && (b.Proof == nil || *a.Proof != *b.Proof) {
			t.Errorf("proof %v, restored %v", a.Proof, b.Proof)
		}
		fed(again, 40_000, 300, 0.9)
		if v := again.tripped; recovery.Test == "" && v != TestErrors {
			t.Errorf("restored, a canary that fails comes to %q", v)
		}
		if again.tripped != "" && again.Save() != nil {
			t.Error("a guard that has tripped is saved")
		}
	}
}

// What makes no sense is not gone on with, and nothing breaks by it.
func TestSavedGuardIsRefused(t *testing.T) {
	c := defaultGuard()
	g := NewGuard(epoch, c)
	fed(g, 0, 200, 0)
	whole, _ := json.Marshal(g.Save())
	otherwise := c
	otherwise.Tolerate = 0.2
	for name, try := range map[string]struct {
		text string
		c    GuardConfig
	}{
		"nothing": {"", c}, "no JSON": {"{", c}, "a number": {"7", c}, "empty": {"{}", c},
		"cut off":         {string(whole[:len(whole)/2]), c},
		"another version": {strings.Replace(string(whole), `"version":2`, `"version":1`, 1), c},
		"another config":  {string(whole), otherwise},
		"no bets":         {strings.Replace(string(whole), `"bets":[{`, `"bets":[],"x":[{`, 1), c},
		"negative decay":  {strings.Replace(string(whole), `"decay":0`, `"decay":-1e9`, 1), c},
		"negative seeds":  {strings.Replace(string(whole), `"seeds":`, `"seeds":-`, 1), c},
	} {
		if _, err := RestoreGuard(epoch, try.c, json.RawMessage(try.text)); err == nil {
			t.Errorf("%s: is gone on with", name)
		}
	}
	share := c
	share.Share = 0.5
	if _, err := RestoreGuard(epoch, share, whole); err != nil {
		t.Errorf("another share: %v; want it gone on with, in another epoch", err)
	}
}

func FuzzRestoreGuard(f *testing.F) {
	c := defaultGuard()
	g := NewGuard(epoch, c)
	fed(g, 0, 50, 0.1)
	whole, _ := json.Marshal(g.Save())
	f.Add(whole)
	f.Add([]byte(`{"version": 1, "past": {"-1": 4, "99999": 7}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := RestoreGuard(epoch, c, text)
		if err != nil {
			return
		}
		fed(g, 0, 20, 0.5)
		if w := g.weight(); math.IsNaN(w) {
			t.Errorf("evidence is no number after %s", text)
		}
	})
}
