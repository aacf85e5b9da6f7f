package simulation_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

// traffic is a trace of twenty requests a second, a quarter of them the canary's,
// of 800 users, answered within 50 ms or so.
type traffic struct {
	from, length float64 // seconds
	share        float64 // of the canary; 0: a quarter
	strangers    bool    // every request is of somebody new
	respond      func(q *simulation.Request)
}

func (f traffic) requests() (all []simulation.Request) {
	rng := rand.New(rand.NewPCG(1, 15))
	if f.share == 0 {
		f.share = 0.25
	}
	for i := range int(f.length * 20) {
		user := int(f.from*20) + i
		if !f.strangers {
			user = rng.IntN(800)
		}
		wait := 0.05 * math.Exp(0.6*rng.NormFloat64())
		q := simulation.Request{
			T: f.from + float64(i)/20, User: "u" + strconv.Itoa(user), Canary: math.Mod(float64(user)*0.618034, 1) < f.share,
			Status: 200, FirstByte: seconds(wait), Duration: seconds(wait + 0.01),
		}
		if f.respond != nil {
			f.respond(&q)
		}
		all = append(all, q)
	}
	return all
}

// played is what a replay has come to, with all that it said.
type played struct {
	simulation.Result
	lines []simulation.Line
}

func playAll(t *testing.T, c monitors.GuardConfig, parts ...traffic) (p played) {
	t.Helper()
	r := simulation.NewReplay(c)
	r.Say = func(l simulation.Line) { p.lines = append(p.lines, l) }
	for _, part := range parts {
		for _, q := range part.requests() {
			if err := r.Add(q); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.Result = r.Finish()
	return p
}

// told are the verdicts and reasons of a replay in their order.
func (p *played) told() (out []string) {
	for _, l := range p.lines {
		s := string(l.Verdict)
		if l.Verdict == monitors.Hold {
			s += ": " + l.Reason
		}
		out = append(out, s)
	}
	return out
}

func fail(q *simulation.Request) {
	if q.Canary {
		q.Status = 500
	}
}

func TestReplayOfNothing(t *testing.T) {
	r := simulation.NewReplay(defaults(0.25))
	r.Say = func(l simulation.Line) { t.Errorf("said %+v", l) }
	want := simulation.Result{Verdict: monitors.Keep}
	if got := r.Finish(); got != want || r.Tripped() {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Requests come in the order of their arrival.
func TestReplayOutOfOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		t    []float64
		want string // error of the last one; "": none
	}{
		{"in order", []float64{1, 1, 2.5}, ""},
		{"within a tenth of a second", []float64{10.02, 10.07, 10}, ""},
		{"a minute back", []float64{10, 100, 40}, "t: 40 is 1m0s before the request of the line above; want the order of arrival"},
		{"before the first one", []float64{10, 5}, "t: 5 is 5s before the request of the line above; want the order of arrival"},
		{"over 300 years", []float64{0, 1e10}, "t: 10000000000 is more than a hundred years after the first request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := simulation.NewReplay(defaults(0.25))
			for i, at := range c.t {
				err := r.Add(simulation.Request{T: at})
				if last := i == len(c.t)-1; !last && err != nil || last && (c.want == "") != (err == nil) || err != nil && err.Error() != c.want {
					t.Errorf("request %d: %v, want %q", i, err, c.want)
				}
			}
			// One that came out of order is left out, and the rest goes on.
			n := int64(len(c.t))
			if c.want != "" {
				n--
			}
			if err := r.Add(simulation.Request{T: 101}); err != nil {
				t.Error(err)
			}
			if got := r.Finish(); got.ControlRequests != n+1 || got.T != 103 {
				t.Errorf("%+v, want %d requests", got, n+1)
			}
		})
	}
}

// What is said: each verdict once, in the trace's own time, and nothing after a
// trip.
func TestReplaySays(t *testing.T) {
	for _, origin := range []float64{0, 1767225600} {
		p := playAll(t, defaults(0.25), traffic{from: origin, length: 300}, traffic{from: origin + 300, length: 60, respond: fail})
		told := strings.Join(p.told(), "; ")
		if told = strings.ReplaceAll(told, "hold: evidence against the canary; ", ""); told != "hold: warming up; keep; trip" {
			t.Fatal(told)
		}
		hold, keep, trip := p.lines[0], p.lines[1], p.lines[len(p.lines)-1]
		if hold.T != origin+1 || hold.Canary.Requests+hold.Control.Requests > 25 || hold.Test != "" {
			t.Errorf("%+v", hold)
		}
		if keep.T < origin+60 || keep.T > origin+63 || keep.Reason != "" || keep.LogE == nil || *keep.LogE > 0 || keep.Canary.Requests < 250 || keep.Control.Requests < 800 || keep.Canary.Bad != 0 {
			t.Errorf("%+v", keep)
		}
		if trip.T < origin+300 || trip.T > origin+310 || math.Abs(trip.T*10-math.Round(trip.T*10)) > 1e-3 || trip.Test != monitors.TestErrors || trip.LogE == nil || *trip.LogE < math.Log(1e4) {
			t.Errorf("%+v", trip)
		}
		if c := trip.Canary; c.Bad < 5 || c.Bad > 40 || c.Requests < c.Bad || c.Requests > 60 || trip.Control.Bad != 0 || trip.Control.Requests == 0 {
			t.Errorf("%+v: want what happened since the canary was well", trip)
		}
		if !strings.Contains(trip.Reason, " canary requests failed against 0 of ") || !strings.Contains(trip.Reason, "different users") {
			t.Error(trip.Reason)
		}
		if p.Verdict != monitors.Trip || p.T != trip.T || p.Test != trip.Test || p.Reason != trip.Reason {
			t.Errorf("%+v after %+v", p.Result, trip)
		}
	}
}

// A replay can be repeated.
func TestReplayAgain(t *testing.T) {
	parts := []traffic{{length: 300, strangers: true}, {from: 300, length: 60, respond: fail}}
	p, again := playAll(t, defaults(0.2), parts...), playAll(t, defaults(0.2), parts...)
	if len(p.lines) < 3 || !reflect.DeepEqual(p, again) {
		t.Errorf("%+v at first, %+v again", p, again)
	}
}

// The lines are those that the documentation shows.
func TestReplayLines(t *testing.T) {
	e := 9.4
	for want, v := range map[string]any{
		`{"t":61.2,"verdict":"trip","test":"errors","log_e":9.4,"canary":{"requests":12,"bad":9},"control":{"requests":90,"bad":0}}`: simulation.Line{
			T: 61.2, Verdict: monitors.Trip, Test: "errors", LogE: &e, Canary: simulation.Counts{Requests: 12, Bad: 9}, Control: simulation.Counts{Requests: 90},
		},
		`{"t":1,"verdict":"hold","reason":"warming up","log_e":null,"canary":{"requests":0,"bad":0},"control":{"requests":0,"bad":0}}`: simulation.Line{T: 1, Verdict: monitors.Hold, Reason: "warming up"},
		`{"verdict":"keep","t":60,"canary_requests":12,"canary_bad":9,"control_requests":0,"control_bad":0}`:                           simulation.Result{Verdict: monitors.Keep, T: 60, CanaryRequests: 12, CanaryBad: 9},
	} {
		if got, err := json.Marshal(v); string(got) != want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

// After a trip nothing is looked at any more.
func TestReplayAfterATrip(t *testing.T) {
	r := simulation.NewReplay(defaults(0.25))
	said := 0
	r.Say = func(simulation.Line) { said++ }
	for _, q := range (traffic{length: 120, respond: fail}).requests() {
		if err := r.Add(q); err != nil {
			t.Fatal(err)
		}
	}
	if !r.Tripped() {
		t.Fatal("it does not trip")
	}
	got, before := r.Finish(), said
	for _, at := range []float64{-5, 1e9} {
		if err := r.Add(simulation.Request{T: at, Canary: true, Status: 500}); err != nil {
			t.Error(err)
		}
	}
	if again := r.Finish(); again != got || said != before {
		t.Errorf("%+v, want %+v still; %d lines more", again, got, said-before)
	}
	if n := got.CanaryRequests + got.ControlRequests; n < 20 || n > int64(got.T*20)+2 || got.T > 30 {
		t.Errorf("%+v: want the requests until the trip", got)
	}
	if got.CanaryBad < 5 || got.CanaryBad > got.CanaryRequests || got.ControlBad != 0 {
		t.Errorf("%+v", got)
	}
}

// All that arrived is counted, and what fails or is not answered in time.
func TestReplayCounts(t *testing.T) {
	add := func(r *simulation.Replay, requests ...simulation.Request) {
		for _, q := range requests {
			if err := r.Add(q); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := simulation.NewReplay(defaults(0.25))
	add(
		r,
		simulation.Request{T: 0, Canary: true, Status: 200},
		simulation.Request{T: 0.1, Canary: true, Status: 502, Duration: seconds(0.1)},
		simulation.Request{T: 0.2, Status: 500},
		simulation.Request{T: 0.3, Outcome: simulation.Aborted, Status: 200, Duration: seconds(20)}, // is waited for
		simulation.Request{T: 0.4, Outcome: simulation.ClientGone},
		simulation.Request{T: 0.5, Canary: true, Outcome: simulation.Unfinished},
		simulation.Request{T: 0.6, Canary: true, Status: 500, Duration: seconds(3600)}, // is not
	)
	want := simulation.Result{Verdict: monitors.Keep, CanaryRequests: 4, CanaryBad: 3, ControlRequests: 3, ControlBad: 2}
	got := r.Finish()
	if got.T < 60 || got.T > 100 {
		t.Errorf("after %v s: blocks wait for a minute at most", got.T)
	}
	if got.T = 0; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	// Without anything under way, two seconds more; that it warmed up still is
	// nothing against a canary.
	r = simulation.NewReplay(defaults(0.25))
	add(r, simulation.Request{T: 7, Canary: true}, simulation.Request{T: 8.3, Status: 200})
	if got := r.Finish(); got.T != 10.3 || got.Verdict != monitors.Keep || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	// A canary that nobody came to has not passed.
	r = simulation.NewReplay(defaults(0.25))
	add(r, simulation.Request{T: 7}, simulation.Request{T: 300, Status: 200})
	if got := r.Finish(); got.Verdict != monitors.Hold || got.Reason != monitors.HoldSilence {
		t.Errorf("%+v", got)
	}
	// Streams that outlive the trace are not a time in which nobody came.
	r = simulation.NewReplay(defaults(0.25))
	for i := range 700 {
		add(r, simulation.Request{T: float64(i), Canary: i%2 == 0, User: strconv.Itoa(i), Status: 200, FirstByte: seconds(0.01), Outcome: simulation.Unfinished})
	}
	if got := r.Finish(); got.Verdict != monitors.Keep {
		t.Errorf("%+v", got)
	}
}

// When the answer begins: how slow a canary is follows from what the trace tells
// of it.
func TestReplayWaits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(q *simulation.Request)
		slow   bool
	}{
		{"as quick", func(*simulation.Request) {}, false},
		{"the first byte is late", func(q *simulation.Request) { *q.FirstByte *= 4 }, true},
		{"the first byte is later than the end", func(q *simulation.Request) { *q.FirstByte *= 4; *q.Duration = 0.01 }, true},
		{"the rest is late", func(q *simulation.Request) { *q.Duration += 0.3 }, false},
		{"no end", func(q *simulation.Request) { q.Duration = nil }, false},
		{"no first byte, late", func(q *simulation.Request) { q.FirstByte = nil; *q.Duration *= 4 }, true},
		{"a first byte of 0, late", func(q *simulation.Request) { *q.FirstByte = 0; *q.Duration *= 4 }, true},
		{"no first byte, ok and late", func(q *simulation.Request) {
			q.FirstByte, q.Status, q.Outcome = nil, 0, simulation.OK
			*q.Duration *= 4
		}, true},
		{"the client left", func(q *simulation.Request) { q.FirstByte, q.Outcome = nil, simulation.ClientGone; *q.Duration *= 4 }, false},
		{"begun, and never ends", func(q *simulation.Request) { q.Outcome = simulation.Unfinished }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playAll(t, defaults(0.25), traffic{length: 300}, traffic{from: 300, length: 180, respond: func(q *simulation.Request) {
				if q.Canary {
					c.change(q)
				}
			}})
			if slow := p.Verdict == monitors.Trip && p.Test == monitors.TestLatency; slow != c.slow || !slow && p.Verdict == monitors.Trip {
				t.Errorf("%+v", p.Result)
			}
		})
	}
}

// A canary that never answers is tripped without a single answer.
func TestReplayUnfinished(t *testing.T) {
	hang := func(q *simulation.Request) {
		if q.Canary {
			q.Outcome, q.FirstByte, q.Duration = simulation.Unfinished, nil, nil
		}
	}
	for _, c := range []struct {
		name   string
		well   float64 // seconds before
		within float64
	}{{"from the start", 0, 15}, {"later", 120, 6}} {
		p := playAll(t, defaults(0.25), traffic{length: c.well}, traffic{from: c.well, length: 30, respond: hang})
		if p.Verdict != monitors.Trip || p.Test != monitors.TestErrors || p.T-c.well > c.within || p.T < c.well+1 || p.CanaryBad < 5 || p.CanaryBad > 30 {
			t.Errorf("%s: %+v", c.name, p.Result)
		}
		if last := p.lines[len(p.lines)-1]; last.Canary.Bad < 5 {
			t.Errorf("%s: %+v", c.name, last)
		}
	}
	// When both hang, it is not the canary.
	p := playAll(t, defaults(0.25), traffic{length: 120}, traffic{from: 120, length: 30, respond: func(q *simulation.Request) { q.Canary = !q.Canary; hang(q); q.Canary = !q.Canary; hang(q) }})
	if p.Verdict == monitors.Trip {
		t.Errorf("both hang: %+v", p.Result)
	}
}

// Where nobody knows who asks, requests count by themselves.
func TestReplayWithoutUsers(t *testing.T) {
	nobody := func(q *simulation.Request) { q.User = "" }
	p := playAll(t, defaults(0.25), traffic{length: 600, respond: nobody})
	if p.Verdict != monitors.Keep {
		t.Errorf("%+v", p.Result)
	}
	p = playAll(t, defaults(0.25), traffic{length: 120, respond: nobody}, traffic{from: 120, length: 60, respond: func(q *simulation.Request) { nobody(q); fail(q) }})
	if p.Verdict != monitors.Trip || p.T < 120 || p.T > 130 || strings.Contains(p.Reason, "users") {
		t.Errorf("%+v", p.Result)
	}
}

// Requests of different epochs are never compared: of each there is one cohort
// only here.
func TestReplayEpochs(t *testing.T) {
	run := func(epoch func(i int) string) (p played) {
		r := simulation.NewReplay(defaults(0.5))
		r.Say = func(l simulation.Line) { p.lines = append(p.lines, l) }
		for i := range 200 {
			q := simulation.Request{T: float64(i), User: strconv.Itoa(i), Canary: i%2 == 0, Status: 200, Epoch: epoch(i)}
			if fail(&q); r.Add(q) != nil {
				t.Fatal("out of order")
			}
		}
		p.Result = r.Finish()
		return p
	}
	if p := run(func(i int) string { return string(strconv.Itoa(i)) }); p.Verdict == monitors.Trip || p.CanaryBad != 100 {
		t.Errorf("a new epoch for each: %+v", p.Result)
	} else {
		for _, l := range p.lines {
			if l.LogE != nil {
				t.Errorf("%+v: log E %v, want none", l, *l.LogE)
			}
		}
	}
	for name, epoch := range map[string]func(i int) string{
		"none": func(int) string { return "" }, "one": func(int) string { return "a" }, "now and then another": func(i int) string { return string(strconv.Itoa(i / 20)) },
	} {
		if p := run(epoch); p.Verdict != monitors.Trip || p.Test != monitors.TestErrors {
			t.Errorf("%s: %+v", name, p.Result)
		}
	}
}

// Another percentage with its epoch is no drop of the canary's traffic.
func TestReplayOtherPercentage(t *testing.T) {
	c := defaults(0.5)
	c.Traffic = monitors.TrafficTrip
	epoch := func(n string) func(q *simulation.Request) { return func(q *simulation.Request) { q.Epoch = n } }
	p := playAll(t, c, traffic{length: 400, share: 0.5, respond: epoch("1"), strangers: true},
		traffic{from: 400, length: 400, share: 0.05, respond: epoch("2")}, traffic{from: 800, length: 400, share: 0.4, respond: epoch("1")})
	if told := strings.Join(p.told(), "; "); told != "hold: warming up; keep" {
		t.Error(told)
	}
}

// Days without a request are not waited for, whatever is under way.
func TestReplayOverAGap(t *testing.T) {
	const days = 1000 * 86400
	begun := time.Now()
	p := playAll(t, defaults(0.25), traffic{length: 120}, traffic{from: 120, length: 1, respond: func(q *simulation.Request) { q.Outcome = simulation.Unfinished }},
		traffic{from: days, length: 120}, traffic{from: days + 120, length: 60, respond: fail})
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if told := strings.Join(p.told(), "; "); !strings.HasPrefix(told, "hold: warming up; keep; ") || !strings.Contains(told, "; hold: no traffic; keep; ") || !strings.HasSuffix(told, "; trip") {
		t.Error(told)
	}
	if p.T < days+120 || p.T > days+130 || p.Test != monitors.TestErrors || p.ControlBad != 0 {
		t.Errorf("%+v", p.Result)
	}
	last := 0.0
	for _, l := range p.lines {
		if l.T < last {
			t.Errorf("%v after %v", l.T, last)
		}
		last = l.T
	}
}

// The share of the users in the canary is what the trace shows, where the
// definition says something else.
func TestReplayShare(t *testing.T) {
	for _, c := range []struct {
		name            string
		defined, actual float64
	}{
		{"as defined", 0.2, 0.2},
		{"less than defined", 0.5, 0.2},
		{"more than defined", 0.05, 0.2},
		{"not defined", 0, 0.2},
	} {
		config := defaults(c.defined)
		config.Traffic = monitors.TrafficTrip
		p := playAll(t, config, traffic{length: 400, share: c.actual, strangers: true})
		if p.Verdict != monitors.Keep {
			t.Errorf("%s: %+v", c.name, p.Result)
		}
	}
	for _, defined := range []float64{0.4, 0.9} {
		config := defaults(defined)
		config.Traffic = monitors.TrafficTrip
		p := playAll(t, config, traffic{length: 200, share: 0.4, strangers: true}, traffic{from: 200, length: 200, share: 0.02, strangers: true})
		if p.Verdict != monitors.Trip || p.Test != monitors.TestArrivals || p.T < 200 {
			t.Errorf("users stop coming to the canary, share %v: %+v", defined, p.Result)
		}
	}
}

// As many users as came are known.
func TestReplayManyUsers(t *testing.T) {
	c := defaults(0.25)
	c.MinUsers = 400
	c.Recovery = monitors.Recovery{Test: monitors.TestErrors, Excess: 0.5}
	p := playAll(t, c, traffic{length: 200, strangers: true}) // 1,000 of the canary
	if p.Verdict != monitors.Recovered {
		t.Errorf("%+v", p.Result)
	}
}
