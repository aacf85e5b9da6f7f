package caddymodule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// bulkSite is a site that tells five flags at once, each on for half of its users.
func bulkSite(t testing.TB) (*engine, *siteRules) {
	t.Helper()
	e := testEngine(t, "")
	var flags []string
	for i := range 5 {
		flags = append(flags, fmt.Sprintf(`"f%d": {"active": true, "percentage_rollout": 50}`, i))
	}
	app := inCharge(t, e, "{"+strings.Join(flags, ",")+`, "by_tenant": {"active": true, "percentage_rollout": 50, "hash_by": "tenant"}, "unguarded": {"active": true, "percentage_rollout": 50, "guard": false}}`)
	h := &Handler{Headers: &Headers{Mode: "list", Name: "X-Features"}}
	return e, h.newSiteRules(app.rules, time.Now())
}

// decisions is the set of a user.
func decisions(s *siteRules, user string) *decisionSet {
	rq := &request{rules: s.rules, site: s}
	rq.ctx.Set(evaluator.UserID, evaluator.String(user))
	rq.eval.Reset(s.rules.Ruleset, &rq.ctx, time.Now())
	return s.newSet(rq).decisionSet
}

// Every guard of the bulk sees every request once, whatever happens at once.
func TestBulkIsSeenOnce(t *testing.T) {
	e, s := bulkSite(t)
	if len(s.logged) != 5 || s.watched != 1 {
		t.Fatalf("%d flags in bulk, %d on their own, want 5 and the one by tenant", len(s.logged), s.watched)
	}
	sets := make([]*decisionSet, 200)
	for i := range sets {
		sets[i] = decisions(s, fmt.Sprintf("u%d", i))
	}
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		for now := time.Now(); ; now = now.Add(10 * time.Microsecond) {
			e.tickLogs(now)
			select {
			case <-done:
				return
			default:
			}
		}
	})
	const workers, each = 8, 1000 // they fit into one block
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range each {
				n := rng.IntN(len(sets))
				ticket := s.log.enter(e, sets[n], uint64(n+1))
				ticket.FirstByte(time.Millisecond)
				ticket.FirstByte(time.Hour)
				if i%10 == 0 {
					ticket.LeaveOut(s.logged[0].flag)
				}
				ticket.End(time.Now(), &monitors.Outcome{Class: monitors.OK, Answered: true})
				ticket.End(time.Now(), &monitors.Outcome{Class: monitors.Failed})
			}
		})
	}
	wg.Wait()
	close(done)
	ticking.Wait()
	later := time.Now().Add(time.Hour)
	e.tickLogs(later)
	e.tickLogs(later.Add(time.Second))
	for k, f := range s.logged {
		g := s.rules.monitors[f.flag].flag.Guard()
		if g == nil {
			t.Fatalf("flag %d has no guard", k)
		}
		status := g.Status(later)
		got, want := status.Canary.Requests+status.Control.Requests, int64(workers*each)
		if k == 0 {
			want -= want / 10 // taken
		}
		if got != want || status.Canary.Bad+status.Control.Bad != 0 || status.Canary.Requests == 0 {
			t.Errorf("flag %d has seen %d requests, %d bad; want %d, none bad", k, got, status.Canary.Bad+status.Control.Bad, want)
		}
	}
	if n := s.log.Held(); n != 0 {
		t.Errorf("%d records are still held", n)
	}
	if e.tickLogs(later.Add(2 * bulkIdle)); s.log.registered.Load() || len(e.logs) != 0 {
		t.Error("a log that nobody writes to is still ticked")
	}
}

// A request that never ends is bad when the guard's limit has passed, for those who
// had it on and for those who had it off.
func TestBulkHangs(t *testing.T) {
	e, s := bulkSite(t)
	now := time.Now()
	for i := range 20 {
		ticket := s.log.enter(e, decisions(s, fmt.Sprintf("u%d", i)), uint64(i+1))
		if i%2 == 0 {
			ticket.End(now, &monitors.Outcome{Class: monitors.OK, Answered: true})
		}
	}
	bad := func() int64 {
		g := s.rules.monitors[s.logged[0].flag].flag.Guard()
		if g == nil {
			return 0
		}
		status := g.Status(now)
		return status.Canary.Bad + status.Control.Bad
	}
	e.tickLogs(now)
	if e.tickLogs(now.Add(monitors.WarmUpLimit - time.Second)); bad() != 0 {
		t.Errorf("%d are bad before the limit", bad())
	}
	if e.tickLogs(now.Add(monitors.WarmUpLimit + time.Second)); bad() != 10 {
		t.Errorf("%d are bad after the limit, want 10", bad())
	}
}

// A log of a site with thousands of flags holds as many bytes as one of a few.
func TestBulkIsBounded(t *testing.T) {
	for flags, want := range map[int]int{5: logRecords, 2000: logBytes / (recordBytes + 4000)} {
		e := testEngine(t, "")
		log := newBulkLog(&siteRules{told: make([]int, flags)})
		n := 0
		for ; n <= logRecords; n++ {
			if ticket := log.enter(e, nil, 1); !ticket.Follows() {
				break
			}
			if n%1000 == 0 {
				log.Seal(time.Now())
			}
		}
		if n != want {
			t.Errorf("%d requests of a site with %d flags are followed at once, want %d", n, flags, want)
		}
	}
}

// What the request path pays for all guards of a bulk.
func BenchmarkBulk(b *testing.B) {
	e, s := bulkSite(b)
	set := decisions(s, "u")
	o := &monitors.Outcome{Class: monitors.OK, Answered: true}
	b.ReportAllocs()
	now := time.Now()
	i := 0
	for b.Loop() {
		if i++; i%500 == 0 {
			now = now.Add(tickEvery)
			e.tickLogs(now)
		}
		ticket := s.log.enter(e, set, uint64(i%1000+1))
		ticket.FirstByte(time.Millisecond)
		ticket.End(now, o)
	}
}

// What comes after a trip or a reset from before it makes no guard, and counts for
// none.
func TestBulkAfterATrip(t *testing.T) {
	e, s := bulkSite(t)
	m := s.rules.monitors[s.logged[0].flag].flag
	now := time.Now()
	hang := func() {
		for i := range 50 {
			s.log.enter(e, decisions(s, fmt.Sprintf("u%d", i)), uint64(i+1))
		}
	}
	hang()
	e.tickLogs(now)
	m.Disarm()
	e.tickLogs(now.Add(time.Minute))
	if m.Guard() != nil {
		t.Error("a tripped flag has a guard")
	}
	hang()
	e.tickLogs(now.Add(2 * time.Minute))
	m.Arm(now.Add(2 * time.Minute))
	e.tickLogs(now.Add(4 * time.Minute))
	if g := m.Guard(); g != nil {
		if status := g.Status(now); status.Canary.Requests+status.Control.Requests > 0 {
			t.Errorf("after a reset: %d requests from before", status.Canary.Requests+status.Control.Requests)
		}
	}
}
