package webhook

import (
	"fmt"
	"time"
)

// keep is a goroutine: it ends what is too old, whoever it waits for, and tells what was dropped, once a minute at most.
func (s *Sender) keep() {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	var told time.Time
	for {
		again := tick.C
		var early *time.Timer
		s.mu.Lock()
		dropped := len(s.queue.dropped) > 0
		s.mu.Unlock()
		if dropped {
			if pause := time.Until(told.Add(sweep)); pause > 0 {
				early = time.NewTimer(pause)
				again = early.C
			} else {
				s.tellDropped()
				told = time.Now()
			}
		}
		select {
		case <-s.stopOthers:
			if early != nil {
				early.Stop()
			}
			s.tellDropped()
			return
		case <-s.wakeKeeper:
		case <-again:
		}
		if early != nil {
			early.Stop()
		}
		s.expire()
	}
}

func (s *Sender) tellDropped() {
	s.mu.Lock()
	dropped := s.queue.dropped
	s.queue.dropped = map[string]int{}
	s.mu.Unlock()
	for target, n := range dropped {
		s.options.Told(Report{
			Target: target, Final: true, Dropped: n,
			Err: fmt.Errorf("webhook %s: %d events dropped, the oldest first: more than %d events or %d bytes wait",
				target, n, s.options.MaxQueued, s.options.MaxBytes),
		})
	}
}

func (s *Sender) expire() {
	s.mu.Lock()
	expired := s.queue.expire(time.Now().Add(-s.options.MaxAge))
	if len(expired) > 0 {
		s.stir()
	}
	s.mu.Unlock()
	for _, it := range expired {
		s.options.Told(Report{
			Target: it.target, Type: it.eventType, Flag: it.flag, Final: true,
			Err: fmt.Errorf("webhook %s: given up after %v and %d attempts", it.target, s.options.MaxAge, it.attempts),
		})
	}
}
