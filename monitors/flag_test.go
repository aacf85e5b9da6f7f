package monitors

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

// subject is a flag under test with its two cells.
type subject struct {
	*Flag
	on, off *Cell
}

func watched(t Thresholds) subject {
	f := NewFlag("new_ui", epoch)
	f.Configure(epoch, t)
	return subject{f, f.Cell("on", "SPLIT", true), f.Cell("off", "SPLIT", false)}
}

// request ends one at once, or after wait.
func (s subject) request(cell *Cell, now time.Time, class Class, wait time.Duration) *Evidence {
	x := follow(s.Flag, now, cell)
	o := &Outcome{Class: class, FirstByte: wait, Duration: wait, Answered: class != ClientGone && class != Failed, RequestID: "r"}
	var e *Evidence
	if o.Answered {
		e = x.FirstByte(wait)
	}
	if v := x.End(now.Add(wait), o); v != nil {
		e = v
	}
	return e
}

func TestErrorThreshold(t *testing.T) {
	for _, class := range []Class{Failed, FailedInside, Aborted} {
		for _, limit := range []int64{0, 1, 5} {
			s := watched(Thresholds{Errors: &limit})
			for range 20 { // none of these counts
				if s.request(s.off, epoch, class, 0) != nil || s.request(s.on, epoch, OK, 0) != nil || s.request(s.on, epoch, Refused, 0) != nil || s.request(s.on, epoch, ClientGone, time.Second) != nil {
					t.Fatal("tripped by what is no error of the canary")
				}
			}
			for n := range limit {
				if e := s.request(s.on, epoch, class, 0); e != nil {
					t.Fatalf("limit %d: tripped by error %d", limit, n+1)
				}
			}
			e := s.request(s.on, epoch, class, 0)
			if e == nil || e.Test != TestErrors || e.Limit != float64(limit) || e.Found != float64(limit+1) || e.Canary.Errors != limit+1 || e.Control.Errors != 20 {
				t.Errorf("%s, limit %d: %+v", class, limit, e)
			}
			if e := s.request(s.on, epoch, class, 0); e != nil {
				t.Error("tripped twice")
			}
		}
	}
}

// A client that leaves says nothing, unless it has waited in vain for long.
func TestPatience(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(0))})
	if e := s.request(s.on, epoch, ClientGone, patience-1); e != nil {
		t.Errorf("tripped by a client that waited for less than %s: %+v", patience, e)
	}
	if e := s.request(s.on, epoch, ClientGone, patience); e == nil {
		t.Errorf("a client that waited for %s in vain is no error", patience)
	}
}

// Slow is longer than the baseline to the first byte, or to the end without one.
func TestSlowRequests(t *testing.T) {
	s := watched(Thresholds{Baseline: time.Second, Slow: 2})
	for range 10 {
		if s.request(s.on, epoch, OK, time.Second) != nil || s.request(s.off, epoch, OK, time.Minute) != nil {
			t.Fatal("tripped by what is not slower than the baseline, or not the canary's")
		}
	}
	if s.request(s.on, epoch, OK, time.Second+1) != nil || s.request(s.on, epoch, ClientGone, 2*time.Second) != nil {
		t.Fatal("tripped too early")
	}
	e := s.request(s.on, epoch, Failed, 2*time.Second)
	if e == nil || e.Test != TestPerformance || e.Found != 3 || e.Limit != 2 || e.Canary.Slow != 3 {
		t.Errorf("%+v", e)
	}
}

// A hang is seen while it lasts, once.
func TestHang(t *testing.T) {
	s := watched(Thresholds{Baseline: time.Second, Slow: 2})
	var hanging []Exposure
	for range 3 {
		hanging = append(hanging, follow(s.Flag, epoch, s.on))
	}
	if e, _ := s.Tick(at(time.Second), true); e != nil {
		t.Fatalf("after the baseline to the letter: %+v", e)
	}
	e, _ := s.Tick(at(1200*time.Millisecond), true)
	if e == nil || e.Test != TestPerformance || e.Found != 3 || e.Canary.Requests != 0 {
		t.Fatalf("%+v, want three slow ones of which none has ended", e)
	}
	for i := range hanging {
		if e := hanging[i].End(at(5*time.Second), &Outcome{Class: OK, Answered: true, FirstByte: 5 * time.Second, Duration: 5 * time.Second}); e != nil {
			t.Errorf("tripped again: %+v", e)
		}
	}
	if slow := s.Status(epoch).Canary.Slow; slow != 3 {
		t.Errorf("%d slow, want each counted once", slow)
	}
}

// An answer that began is not waited for, however long its body takes.
func TestFirstByteEndsTheWait(t *testing.T) {
	s := watched(Thresholds{Baseline: time.Second, Slow: 0})
	x := follow(s.Flag, epoch, s.on)
	if x.FirstByte(100*time.Millisecond) != nil {
		t.Fatal("slow")
	}
	for d := time.Duration(0); d < time.Minute; d += 100 * time.Millisecond {
		if e, _ := s.Tick(at(d), true); e != nil {
			t.Fatalf("%+v", e)
		}
	}
	if e := x.End(at(time.Minute), &Outcome{Class: OK, Answered: true, FirstByte: 100 * time.Millisecond, Duration: time.Minute}); e != nil {
		t.Errorf("%+v", e)
	}
}

func TestDisarmAndArm(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(1)), Baseline: time.Second, Slow: 0})
	old := follow(s.Flag, epoch, s.on)
	s.request(s.on, epoch, Failed, 0)
	s.Disarm()
	if s.request(s.on, epoch, Failed, 0) != nil || s.request(s.on, epoch, OK, time.Minute) != nil {
		t.Error("a verdict though it is disarmed")
	}
	s.Arm(at(time.Minute))
	if st := s.Status(epoch); st.Canary != (CohortEvidence{}) || !st.Armed.Equal(at(time.Minute)) {
		t.Errorf("%+v, want it to begin anew", st)
	}
	// What began before the reset ends in what was counted before it.
	if e := old.End(at(time.Minute), &Outcome{Class: Failed}); e != nil || s.Status(epoch).Canary.Errors != 0 {
		t.Errorf("%+v, %+v", e, s.Status(epoch))
	}
	if s.request(s.on, at(time.Minute), Failed, 0) != nil {
		t.Error("the first error after the reset trips")
	}
	if s.request(s.on, at(time.Minute), Failed, 0) == nil {
		t.Error("the second does not")
	}
}

// Other thresholds go on with the counts; what slow means begins anew with
// another baseline.
func TestConfigureKeepsCounts(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(5)), Baseline: time.Second, Slow: 5})
	for range 2 {
		s.request(s.on, epoch, Failed, 0)
		s.request(s.on, epoch, OK, 2*time.Second)
	}
	s.Configure(at(time.Minute), Thresholds{Errors: ptr(int64(5)), Baseline: time.Second, Slow: 5})
	s.Configure(at(time.Minute), Thresholds{Errors: ptr(int64(2)), Baseline: time.Second, Slow: 5})
	if st := s.Status(epoch); st.Canary.Errors != 2 || st.Canary.Slow != 2 || !st.Armed.Equal(epoch) {
		t.Errorf("%+v", st)
	}
	if e := s.request(s.on, epoch, Failed, 0); e == nil || e.Found != 3 || len(e.Last) != 3 {
		t.Errorf("%+v, want the third error to pass the new limit", e)
	}
	s.Configure(at(time.Minute), Thresholds{Errors: ptr(int64(2)), Baseline: 2 * time.Second, Slow: 5})
	if st := s.Status(epoch); st.Canary.Slow != 0 || st.Canary.Errors != 3 {
		t.Errorf("another baseline: %+v", st)
	}
	if s.request(s.on, epoch, Failed, 0) != nil {
		t.Error("tripped again by an edit")
	}
}

// Evidence shows the last few failing requests, newest last, and no more.
func TestEvidenceIsBounded(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(100))})
	var e *Evidence
	for n := range 101 {
		x := follow(s.Flag, epoch, s.on)
		e = x.End(at(time.Duration(n)*time.Second), &Outcome{Class: Failed, Status: 502, RequestID: fmt.Sprint("r", n), Error: "status 502"})
	}
	if e == nil || len(e.Last) != keptRequests || e.Last[keptRequests-1].ID != "r100" || e.Last[0].ID != "r93" || !e.Last[0].At.Equal(at(93*time.Second)) {
		t.Errorf("%+v", e)
	}
}

// Many at once: one verdict.
func TestOneVerdict(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(50)), Baseline: time.Millisecond, Slow: 50})
	var verdicts atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if s.request(s.on, epoch, Failed, time.Second) != nil {
					verdicts.Add(1)
				}
			}
		})
	}
	all.Go(func() {
		for n := range 200 {
			if e, _ := s.Tick(at(time.Duration(n)*100*time.Millisecond), true); e != nil {
				verdicts.Add(1)
			}
		}
	})
	all.Wait()
	if verdicts.Load() != 1 {
		t.Errorf("%d verdicts, want 1", verdicts.Load())
	}
	if got := s.Cohort(true); got.Total() != 800 {
		t.Errorf("%d counted, want 800", got.Total())
	}
}

func TestLastAsked(t *testing.T) {
	s := watched(Thresholds{})
	s.Sweep(epoch)
	if !s.LastAsked().IsZero() {
		t.Errorf("%s, want never", s.LastAsked())
	}
	s.on.Add(OK, 0)
	s.Sweep(at(time.Minute))
	s.Sweep(at(time.Hour))
	if !s.LastAsked().Equal(at(time.Minute)) {
		t.Errorf("%s, want when it was found", s.LastAsked())
	}
}

// follow exposes a request whose answer is seen.
func follow(f *Flag, now time.Time, cell *Cell) Exposure {
	x := f.Expose(cell)
	x.Follow(now, Ticket{})
	return x
}

// A request whose answer nobody sees is no slow one.
func TestNotFollowedIsNotWaiting(t *testing.T) {
	s := watched(Thresholds{Baseline: time.Second, Slow: 1})
	for range 10 {
		s.Expose(s.on)
	}
	for d := time.Duration(0); d < 10*time.Second; d += 100 * time.Millisecond {
		if e, _ := s.Tick(at(d), true); e != nil {
			t.Fatalf("tripped by requests that nobody follows: %s", e.Summary)
		}
	}
}
