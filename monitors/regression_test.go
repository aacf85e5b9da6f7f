package monitors

import (
	"testing"
	"time"
)

func TestTrafficAfterALongPause(t *testing.T) {
	var tr traffic
	tr.advance(at(0), 0)
	tr.advance(at(70*time.Second), 70)
	tr.advance(at(70*time.Second+time.Hour), 70+3600) // one a second
	if sum, _ := tr.lastWindow(); sum < 59 || sum > 61 {
		t.Errorf("after an hour's pause: %d in the last minute, want about 60", sum)
	}
}

func TestArmForgetsRequestsUnderWay(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(1))})
	s.request(s.on, epoch, Failed, 0)
	old := follow(s.Flag, epoch, s.on)
	s.Arm(at(time.Minute)) // a reset before it has tripped
	if e := old.End(at(time.Minute), &Outcome{Class: Failed}); e != nil {
		t.Errorf("a request from before the reset trips: %+v", e)
	}
}

func TestConfigureKeepsRequestsUnderWay(t *testing.T) {
	s := watched(Thresholds{Errors: ptr(int64(1))})
	a, b := follow(s.Flag, epoch, s.on), follow(s.Flag, epoch, s.on)
	s.Configure(at(time.Second), Thresholds{Errors: ptr(int64(100))})
	a.End(at(time.Minute), &Outcome{Class: Failed})
	if e := b.End(at(time.Minute), &Outcome{Class: Failed}); e != nil {
		t.Errorf("tripped by a limit that was raised meanwhile: %+v", e)
	}
	if n := s.Status(epoch).Canary.Errors; n != 2 {
		t.Errorf("%d errors, want 2: those under way at the edit are lost", n)
	}
}

func TestConfigureKeepsHangsUnderWay(t *testing.T) {
	s := watched(Thresholds{Baseline: time.Second, Slow: 1})
	for range 5 {
		follow(s.Flag, epoch, s.on)
	}
	s.Configure(at(500*time.Millisecond), Thresholds{Baseline: time.Second, Slow: 2})
	var e *Evidence
	for d := time.Duration(0); d < 10*time.Second && e == nil; d += 100 * time.Millisecond {
		e, _ = s.Tick(at(d), true)
	}
	if e == nil {
		t.Error("a hang that began before an edit is never seen")
	}
}

func TestLongWaitsDoNotOverflow(t *testing.T) {
	c := new(Cell)
	for range 1000 {
		c.Add(ClientGone, time.Hour)
	}
	s := c.Snapshot()
	if s.Total() != 1000 || s.Waited != 1000*time.Hour {
		t.Errorf("%d, %s", s.Total(), s.Waited)
	}
}
