package webhook

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// lane is a goroutine that sends what waits for one target. Sender.mu guards it.
//
// Events that were refused ten times, by a peer that answers, are parked: they are tried one after the other, one in five
// minutes until one of them is accepted, beside the others, whose order and pauses they do not touch.
type lane struct {
	s      *Sender
	to     *destination
	wake   chan struct{}
	leave  chan struct{}   // Closed when the target is gone.
	after  <-chan struct{} // Closed when an earlier lane of the same name has ended; nil: there was none.
	ended  chan struct{}
	fresh  pace
	parked pace
}

// pace says when the next attempt may be made.
type pace struct {
	backoff *backoff.ExponentialBackOff
	next    time.Time
}

func newPace(first time.Duration) pace {
	return pace{backoff: &backoff.ExponentialBackOff{
		InitialInterval:     first,
		RandomizationFactor: 0.25, // So that a fleet does not come back all at once.
		Multiplier:          2,
		MaxInterval:         retryMax,
	}}
}

// reset has the next attempt made at once.
func (p *pace) reset(now time.Time) {
	p.backoff.Reset()
	p.next = now
}

// slow puts the next attempt off, and further each time.
func (p *pace) slow(now time.Time) {
	p.delay(now.Add(p.backoff.NextBackOff()))
}

// delay puts the next attempt off until then, if that is later.
func (p *pace) delay(until time.Time) {
	if until.After(p.next) {
		p.next = until
	}
}

func newLane(s *Sender, to *destination, after <-chan struct{}) *lane {
	l := &lane{s: s, to: to, wake: make(chan struct{}, 1), leave: make(chan struct{}), after: after, ended: make(chan struct{})}
	l.restart()
	return l
}

// restart forgets how it went before.
func (l *lane) restart() {
	l.fresh, l.parked = newPace(retryMin), newPace(retryMax)
}

func (l *lane) run() {
	defer close(l.ended)
	if l.after != nil {
		<-l.after // It ends by itself, within the timeout of its request.
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.leave:
			return
		case <-l.s.stopLanes:
			return
		default:
		}
		it, to, pause := l.take(time.Now())
		if it != nil {
			l.settle(it, to.attempt(l.s.requests, l.s.options.Transport, it), time.Now())
			continue
		}
		timer.Reset(pause)
		select {
		case <-l.leave:
		case <-l.s.stopLanes:
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// take returns the item whose turn it is, or how long there is none.
func (l *lane) take(now time.Time) (it *item, to *destination, pause time.Duration) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	fresh, parked := l.s.queue.heads(l.to.name, l.to.target.Format, now.Add(-l.s.options.MaxAge))
	pause = l.s.options.MaxAge
	switch {
	case parked != nil && !now.Before(l.parked.next): // They are older.
		it = parked
	case fresh != nil && !now.Before(l.fresh.next):
		it = fresh
	default:
		if parked != nil {
			pause = min(pause, l.parked.next.Sub(now))
		}
		if fresh != nil {
			pause = min(pause, l.fresh.next.Sub(now))
		}
		return nil, nil, pause
	}
	it.busy = true
	it.attempts++
	return it, l.to, 0
}

// settle notes what became of an attempt.
func (l *lane) settle(it *item, out outcome, now time.Time) {
	r := Report{
		Target: it.target, Type: it.eventType, Flag: it.flag, Attempt: it.attempts,
		Err: out.err, Final: out.err == nil || out.final,
	}
	l.s.mu.Lock()
	it.busy = false
	dropped := it.gone // And told to be.
	var late []*item
	switch {
	case r.Final:
		if out.err == nil {
			late = l.s.queue.supersede(it)
		}
		l.s.queue.remove(it)
		l.fresh.reset(now)
		if it.parked {
			l.parked.reset(now)
		}
	case it.parked:
		it.tried = now
		l.parked.slow(now)
	default:
		l.retry(it, out, now)
	}
	if out.retryAfter > 0 {
		l.fresh.delay(now.Add(out.retryAfter))
		l.parked.delay(now.Add(out.retryAfter))
	}
	l.s.stir()
	l.s.mu.Unlock()
	if !dropped {
		l.s.options.Told(r)
	}
	for _, old := range late {
		l.s.options.Told(Report{Target: old.target, Type: old.eventType, Flag: old.flag, Attempt: old.attempts, Err: errLate, Final: true})
	}
}

// errLate is told of what would have come too late.
var errLate = errors.New("a later event of the same incident was accepted first")

// retry has a fresh item tried again, or parked.
func (l *lane) retry(it *item, out outcome, now time.Time) {
	if out.answered {
		it.answered++
	}
	if it.answered < patience {
		l.fresh.slow(now)
		return
	}
	it.parked, it.tried = true, now
	l.parked.slow(now)
	// The next one at once: it may be what the peer is waiting for. The pauses after it go on as they were.
	l.fresh.next = now
}
