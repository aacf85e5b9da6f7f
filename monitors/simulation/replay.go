package simulation

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Replay plays a trace through a guard. Not safe for concurrent use.
type Replay struct {
	// Say is called with each verdict that differs from the one before; nil: with
	// none.
	Say func(Line)

	guard   *monitors.Guard
	config  monitors.GuardConfig
	origin  float64       // of the trace's clock
	now     time.Duration // since then
	began   bool
	pending events
	epoch   string
	number  int64
	users   map[uint64]bool // by hash: whether it was of the canary
	canary  int             // of them
	shared  int             // users when the share was last compared
	said    Line
	result  Result
}

// Line is a verdict.
type Line struct {
	T       float64              `json:"t"`
	Verdict monitors.VerdictKind `json:"verdict"`
	Test    string               `json:"test,omitempty"`   // of a trip
	Reason  string               `json:"reason,omitempty"` // of a hold or a trip, in words
	LogE    *float64             `json:"log_e"`            // natural logarithm of the evidence; null: none
	Canary  Counts               `json:"canary"`           // of a trip: since nothing spoke against the canary
	Control Counts               `json:"control"`
}

// Counts are a cohort's requests.
type Counts struct {
	Requests int64 `json:"requests"`
	Bad      int64 `json:"bad"`
}

// Result is what all of a trace has come to.
type Result struct {
	Verdict         monitors.VerdictKind `json:"verdict"` // trip, hold or keep
	T               float64              `json:"t"`       // of that verdict
	Test            string               `json:"test,omitempty"`
	Reason          string               `json:"reason,omitempty"`
	CanaryRequests  int64                `json:"canary_requests"` // that arrived until then
	CanaryBad       int64                `json:"canary_bad"`      // of them, that had failed by then
	ControlRequests int64                `json:"control_requests"`
	ControlBad      int64                `json:"control_bad"`
}

const (
	step    = 100 * time.Millisecond
	longGap = 24 * time.Hour
	longest = 100 * 365 * 86400 // seconds
)

// NewReplay makes a replay with a guard of that configuration.
func NewReplay(c monitors.GuardConfig) *Replay {
	return &Replay{config: c, users: map[uint64]bool{}, result: Result{Verdict: monitors.Keep}}
}

// flight is a request under way.
type flight struct {
	ticket  monitors.Ticket
	outcome monitors.Outcome
	canary  bool
}

// event is the beginning or the end of an answer.
type event struct {
	at     time.Duration
	flight *flight
	end    bool
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, k int) bool {
	return e[i].at < e[k].at || e[i].at == e[k].at && !e[i].end && e[k].end
}
func (e events) Swap(i, k int) { e[i], e[k] = e[k], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { old := *e; x := old[len(old)-1]; *e = old[:len(old)-1]; return x }

// clock is the time that the guard sees.
func (r *Replay) clock() time.Time { return time.Unix(0, 0).Add(r.now) }

// Tripped tells whether the guard has tripped: what comes later is not looked at.
func (r *Replay) Tripped() bool { return r.result.Verdict == monitors.Trip }

// Add plays the next request. The error says that it came out of order.
func (r *Replay) Add(q Request) error {
	if !r.began {
		r.began, r.origin, r.epoch = true, math.Floor(q.T*10)/10, q.Epoch
		r.guard = monitors.NewGuard(r.clock(), r.config)
	}
	if r.Tripped() {
		return nil
	}
	if q.T-r.origin > longest {
		return fmt.Errorf("t: %s is more than a hundred years after the first request", exactly(q.T))
	}
	at := time.Duration((q.T - r.origin) * float64(time.Second))
	if q.T < r.origin-longest || at < r.now-step {
		return fmt.Errorf("t: %s is %v before the request of the line above; want the order of arrival", exactly(q.T), r.now-at)
	}
	r.until(at)
	if r.Tripped() {
		return nil
	}
	if q.Epoch != r.epoch {
		r.epoch = q.Epoch
		r.number = r.guard.NextEpoch(r.clock(), 0) // nobody knows the new share
		clear(r.users)
		r.canary, r.shared = 0, 0
	}
	user := uint64(0)
	if q.User != "" {
		user = hashOf(q.User)
		if _, known := r.users[user]; !known {
			r.users[user] = q.Canary
			if q.Canary {
				r.canary++
			}
			r.compareShare()
		}
	}
	firstByte, end := q.times()
	f := &flight{canary: q.Canary, ticket: r.guard.Arrive(r.number, q.Canary, user)}
	f.outcome = monitors.Outcome{Class: q.class(), Status: q.Status, FirstByte: firstByte, Answered: firstByte >= 0, Duration: end}
	if q.Canary {
		r.result.CanaryRequests++
	} else {
		r.result.ControlRequests++
	}
	if firstByte >= 0 {
		heap.Push(&r.pending, event{at + firstByte, f, false})
	}
	if end >= 0 {
		heap.Push(&r.pending, event{at + end, f, true})
	}
	return nil
}

func exactly(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// hashOf is the same in every run, so that a replay can be repeated; never 0.
func hashOf(user string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(user))
	z := h.Sum64() // mixed, as short texts leave its upper bits alike
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return max(z^z>>31, 1)
}

// compareShare has the guard know the share that the trace shows, where that is
// another one than the definition's.
func (r *Replay) compareShare() {
	n := len(r.users)
	if n < 100 || n < 2*r.shared {
		return
	}
	r.shared = n
	p := float64(r.canary) / float64(n)
	known := r.config.Share
	if known > 0 && math.Abs(p-known) <= 5*math.Sqrt(known*(1-known)/float64(n)) && r.number == 0 {
		return
	}
	r.guard.SetShare(p)
}

// until lets time pass.
func (r *Replay) until(at time.Duration) {
	for !r.Tripped() {
		next := r.now + step
		if next > at {
			r.happen(at)
			return
		}
		r.happen(next)
		r.now = next
		r.tick()
		if len(r.pending) == 0 && at-r.now > longGap {
			r.now = (at - time.Hour).Truncate(step) // nothing can happen meanwhile
		}
	}
}

// happen has answers begin and end.
func (r *Replay) happen(until time.Duration) {
	for len(r.pending) > 0 && r.pending[0].at <= until {
		e := heap.Pop(&r.pending).(event)
		f := e.flight
		if !e.end {
			f.ticket.FirstByte(f.outcome.FirstByte)
			continue
		}
		f.ticket.End(time.Unix(0, 0).Add(e.at), &f.outcome)
		if f.outcome.Class.IsError() {
			if f.canary {
				r.result.CanaryBad++
			} else {
				r.result.ControlBad++
			}
		}
	}
}

func (r *Replay) tick() {
	v := r.guard.Tick(r.clock())
	if v.Kind == r.said.Verdict && v.Reason == r.said.Reason {
		return
	}
	l := Line{T: r.t(), Verdict: v.Kind, Test: v.Test, Reason: v.Reason}
	s := r.guard.Status(r.clock())
	l.LogE = s.LogE["total"]
	l.Canary, l.Control = Counts{s.Canary.Requests, s.Canary.Bad}, Counts{s.Control.Requests, s.Control.Bad}
	if v.Kind == monitors.Trip {
		e := r.guard.Evidence(r.clock())
		l.Reason = e.Summary
		l.Canary, l.Control = counts(e.Canary), counts(e.Control)
	}
	first := r.said.Verdict == ""
	r.said = l
	r.said.Reason = v.Reason
	r.result.Verdict, r.result.T, r.result.Test, r.result.Reason = l.Verdict, l.T, l.Test, l.Reason
	if r.Say != nil && !(first && v.Kind == monitors.Keep) {
		r.Say(l)
	}
}

func counts(c monitors.CohortEvidence) Counts {
	return Counts{Requests: c.Requests, Bad: max(c.Errors, c.Slow)}
}

// t is the time on the trace's clock, to the tenth of a second.
func (r *Replay) t() float64 { return math.Round((r.origin+r.now.Seconds())*10) / 10 }

// Finish lets what is under way come to its end, as long as a block waits for it
// at most, and returns what all has come to.
func (r *Replay) Finish() Result {
	before := r.result
	if r.began && !r.Tripped() {
		last := r.now
		for i := 0; i < 700 && len(r.pending) > 0 && !r.Tripped(); i++ {
			r.until(r.now + step)
		}
		if !r.Tripped() {
			r.until(last + 2*time.Second)
		}
	}
	if !r.began {
		return r.result
	}
	if !r.Tripped() {
		// That nobody comes after the end of the trace says nothing.
		r.result.Verdict, r.result.Reason, r.result.T = before.Verdict, before.Reason, r.t()
		switch {
		case before.CanaryRequests == 0 || before.ControlRequests == 0:
			r.result.Verdict, r.result.Reason = monitors.Hold, monitors.HoldSilence
		case r.result.Reason == monitors.HoldWarmUp: // no more to say of a short trace
			r.result.Verdict, r.result.Reason = monitors.Keep, ""
		}
	}
	// Those without an answer in time are bad, though they have not ended.
	s := r.guard.Status(r.clock())
	r.result.CanaryBad, r.result.ControlBad = max(r.result.CanaryBad, s.Canary.Bad), max(r.result.ControlBad, s.Control.Bad)
	return r.result
}
