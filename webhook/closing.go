package webhook

import (
	"fmt"
	"sync"
	"time"
)

// Close begins no new request, waits for those under way, writes what waits, and ends all goroutines. It waits twice
// [Options.CloseTimeout] at most; requests that take longer than once are broken off, to be repeated when the file is
// opened again. The error tells how many events are neither delivered nor on disk, if any: those are lost. It may be
// called again, to wait longer.
func (s *Sender) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stopLanes)
		s.ended = make(chan struct{})
		go s.end()
	}
	ended := s.ended
	s.mu.Unlock()
	// The goroutine end keeps the times; a little more, so that its own do not race with this one.
	if !wait(ended, 2*s.options.CloseTimeout+time.Second) {
		return fmt.Errorf("closing webhooks: the disk has not answered for %v, %d events wait", s.options.CloseTimeout, s.Queued())
	}
	s.mu.Lock()
	lost, health := len(s.queue.undurable()), s.health
	s.mu.Unlock()
	switch {
	case lost == 0:
		return nil
	case health != nil:
		return fmt.Errorf("closing webhooks: %d events are neither delivered nor on disk: %w", lost, health)
	}
	return fmt.Errorf("closing webhooks: %d events are neither delivered nor on disk", lost)
}

// end is what Close waits for.
func (s *Sender) end() {
	defer close(s.ended)
	if !wait(groupDone(&s.laneGroup), s.options.CloseTimeout) {
		s.abort()
		s.laneGroup.Wait()
	}
	s.abort()
	if idle, ok := s.options.Transport.(interface{ CloseIdleConnections() }); ok {
		idle.CloseIdleConnections()
	}
	close(s.stopOthers)
	s.otherGroup.Wait()

	s.mu.Lock()
	lost := map[string]int{}
	for _, it := range s.queue.undurable() {
		lost[it.target]++
	}
	s.mu.Unlock()
	for target, n := range lost {
		s.options.Told(Report{Target: target, Err: ErrClosed, Final: true, Dropped: n})
	}
}

func groupDone(g *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Wait()
	}()
	return done
}

// wait returns false when done was not closed in time.
func wait(done <-chan struct{}, limit time.Duration) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-done:
		return true
	case <-timeout.C:
		return false
	}
}
