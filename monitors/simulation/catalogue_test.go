package simulation

import (
	"iter"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// first are the first n of a scenario's requests, or all.
func first(n int, requests iter.Seq[Request]) (out []Request) {
	for q := range requests {
		if out = append(out, q); len(out) == n {
			break
		}
	}
	return out
}

// Each scenario says what it is, and what is asked of an answer.
func TestCatalogue(t *testing.T) {
	ids := map[string]bool{}
	kinds := map[monitors.VerdictKind]int{}
	for i := range Scenarios {
		s := &Scenarios[i]
		if id := strings.ToLower(s.ID); id == "" || ids[id] || strings.ContainsAny(id, " \t/") {
			t.Errorf("id %q is missing, taken or hard to write", s.ID)
		}
		ids[strings.ToLower(s.ID)] = true
		kinds[s.Want]++
		if s.Summary == "" || strings.HasSuffix(s.Summary, ".") {
			t.Errorf("%s: summary %q", s.ID, s.Summary)
		}
		switch b := s.Budget; s.Want {
		case monitors.Trip:
			if b.Delay <= 0 || b.False != 0 || s.Hold != "" {
				t.Errorf("%s: a trip has a budget of time: %+v", s.ID, b)
			}
		case monitors.Hold:
			if b.Delay <= 0 || s.Hold == "" {
				t.Errorf("%s: a hold has a reason, and a budget of time: %q, %+v", s.ID, s.Hold, b)
			}
		case monitors.Keep:
			if b.Delay != 0 || b.Failures != 0 || b.False < 0 || b.False > 0.01 {
				t.Errorf("%s: %+v", s.ID, b)
			}
		default:
			t.Errorf("%s: wants %q", s.ID, s.Want)
		}
		if s.OnsetAt() <= 0 || s.Length > 0 && s.OnsetAt() >= s.Length || s.OnsetAt() >= time.Hour || s.Share() <= 0 || s.Share() >= 1 {
			t.Errorf("%s: begins at %v of %v with a share of %v", s.ID, s.OnsetAt(), s.Length, s.Share())
		}
		for _, id := range []string{s.ID, strings.ToLower(s.ID), strings.ToUpper(s.ID)} {
			if Find(id) != s {
				t.Errorf("%s is not found", id)
			}
		}
	}
	if Find("") != nil || Find("S0") != nil {
		t.Error("found what is not there")
	}
	if kinds[monitors.Trip] < 10 || kinds[monitors.Keep] < 10 || kinds[monitors.Hold] == 0 {
		t.Errorf("%v", kinds)
	}
}

// The same seed gives the same traffic, another one another, in order.
func TestCatalogueRequests(t *testing.T) {
	for i := range Scenarios {
		s := &Scenarios[i]
		t.Run(s.ID, func(t *testing.T) {
			requests := first(5000, s.Requests(1))
			if again := first(5000, s.Requests(1)); !reflect.DeepEqual(requests, again) {
				t.Error("the same seed gives other requests")
			}
			if other := first(10, s.Requests(2)); requests[0].T == other[0].T || requests[9].T == other[9].T {
				t.Error("another seed gives the same requests")
			}
			length := s.Length
			if length == 0 {
				length = time.Hour
			}
			last, of := 0.0, map[string]bool{}
			for _, q := range requests {
				if q.T < last || q.T >= length.Seconds() {
					t.Fatalf("a request at %v, the one before at %v, of %v", q.T, last, length)
				}
				last = q.T
				if was, known := of[q.User]; known && q.User != "" && was != q.Canary {
					t.Fatalf("%s is in both cohorts", q.User)
				}
				of[q.User] = q.Canary
			}
		})
	}
}

// Traffic is as declared: how much, of how many users, and how many of them are
// in the canary.
func TestCatalogueShares(t *testing.T) {
	const seeds = 6
	for i := range Scenarios {
		s := &Scenarios[i]
		perSecond, users, n := s.perSecond, s.users, 5000
		if perSecond == 0 {
			perSecond = 100
		}
		if users == 0 {
			users = 2000
		}
		if perSecond < 1 {
			n = 100 // an hour
		}
		var rate, expected, share, ofCanary, requests float64
		most := 0
		for seed := range uint64(seeds) {
			all := first(n, s.Requests(seed))
			end := all[len(all)-1].T
			rate += float64(len(all)) / end
			for k := range 1000 { // the mean rate until then
				if s.rate == nil {
					expected += perSecond / 1000
				} else {
					expected += perSecond * s.rate(time.Duration(end*float64(k)*1e6)) / 1000
				}
			}
			known := map[string]bool{}
			for _, q := range all {
				known[q.User] = q.Canary
				if q.Canary {
					ofCanary++
				}
				requests++
			}
			delete(known, "bot")
			most = max(most, len(known))
			for _, canary := range known {
				if canary {
					share += 1 / float64(len(known)) / seeds
				}
			}
		}
		if s.retries > 0 {
			expected *= 1.05
		}
		if math.Abs(rate/expected-1) > 0.01+5/math.Sqrt(requests) && s.comes == nil {
			t.Errorf("%s: %.3g requests a second, want %.3g", s.ID, rate/seeds, expected/seeds)
		}
		if s.nobody != (most == 1) || most > users || !s.nobody && n > 100 && float64(most) < 0.1*float64(users) {
			t.Errorf("%s: %d users of %d", s.ID, most, users)
		}
		if !s.nobody && math.Abs(share-s.Share()) > 0.2*s.Share() {
			t.Errorf("%s: %.3f of the users are in the canary, want %v", s.ID, share, s.Share())
		}
		want := s.bot + (1-s.bot)*s.Share()
		if share := ofCanary / requests; math.Abs(share-want) > 0.4*want {
			t.Errorf("%s: %.3f of the requests are the canary's, want %v", s.ID, share, want)
		}
	}
}

// What a scenario says of its canary is in its traffic, and not before.
func TestCatalogueCanaries(t *testing.T) {
	bad := func(q *Request) bool {
		return q.Outcome == Error || q.Outcome == Aborted
	}
	slow := func(q *Request) bool { return q.FirstByte != nil && *q.FirstByte > 1.5 }
	silent := func(q *Request) bool { return q.Outcome == Unfinished && q.FirstByte == nil }
	for _, c := range []struct {
		id              string
		what            func(q *Request) bool
		canary, control float64 // shares of requests from a minute to two and a half
	}{
		{"S01", bad, 1, 0.001},
		{"S22", bad, 1, 0.001},
		{"S02", bad, 0.03, 0.01},
		{"S04", slow, 0.03, 0},
		{"S08", silent, 1, 0},
		{"S08-timeout", bad, 1, 0.001},
		{"S09", func(q *Request) bool { return q.Outcome == Aborted && q.Status == 200 }, 0.3, 0},
		{"S15", bad, 0.001, 0.001},
		{"S16", bad, 0.06, 0.06},
		{"S18", bad, 0.5 * 20 / 90, 0.001},
		{"S20", bad, 0.001, 0.05},
		{"G1", func(q *Request) bool { return q.Outcome == Error && q.Status == 200 }, 0.05, 0},
		{"P1", bad, 0.06, 0.001},
		{"half", bad, 0.05, 0.001},
		{"gone", func(q *Request) bool { return q.Outcome == ClientGone && *q.Duration >= 5 }, 1, 0},
	} {
		s := Find(c.id)
		var n, x [2]float64
		for seed := range uint64(8) {
			for q := range s.Requests(seed) {
				if q.T >= 150 {
					break
				}
				of := 0
				if q.Canary {
					of = 1
				}
				if q.T >= 60 {
					n[of]++
					if c.what(&q) {
						x[of]++
					}
				} else if c.canary > 0.2 && c.what(&q) && q.Outcome != Error {
					t.Errorf("%s: %+v before it begins", c.id, q)
				}
			}
		}
		for of, want := range [2]float64{c.control, c.canary} {
			if got := x[of] / n[of]; math.Abs(got-want) > 4*math.Sqrt(want*(1-want)/n[of])+1e-9 {
				t.Errorf("%s: %.4f of cohort %d's %v requests, want %v", c.id, got, of, n[of], want)
			}
		}
	}
}

// What clients try again fails again: errors come in clumps of one user.
func TestCatalogueRetries(t *testing.T) {
	for _, id := range []string{"retries", "retries-nobody"} {
		bad, n := 0.0, 0.0
		for _, q := range first(50_000, Find(id).Requests(1)) {
			if n++; q.Outcome == Error {
				bad++
			}
		}
		// Of 100 requests two fail, and 2.5 times more each.
		if got, want := bad/n, 0.07/1.05; math.Abs(got-want) > 0.01 {
			t.Errorf("%s: %.4f of the requests fail, want %.4f", id, got, want)
		}
	}
}
