// Package webhook tells other systems what happened to feature flags: signed requests to webhooks, in the formats of
// CloudEvents, Slack and PagerDuty, from a bounded queue that outlives the process. It knows no Caddy.
//
// [Sender.Send] puts an event into a queue in memory, once for each [Target] that wants it, and returns. One goroutine
// writes the queue to a file behind it, many events with one transaction. One goroutine a target sends what waits for
// it, one request at a time and in order of arrival, and tries again with growing pauses what was not accepted.
//
// An event is delivered at least once: what is in the file is sent after a crash, under the same webhook-id, by which
// receivers drop what they have seen. Order is kept but for events that a target refuses again and again while it
// answers: others go first then.
//
// The file is one of bbolt's, of mode 0600. It holds the bodies of the events, and no secret of a target. When it cannot
// be used the queue works in memory, [Sender.Health] tells, and the file is tried again; when it is damaged it is kept
// as PATH.damaged-TIME, and what could be read of it goes into a new one.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// ErrClosed is wrapped by the error of a [Report] on events that a closed [Sender] did not take or did not deliver.
var ErrClosed = errors.New("webhooks are closed")

// Sender sends events to targets. It is safe for concurrent use. Make one with [Open].
type Sender struct {
	path    string
	options Options

	mu      sync.Mutex // Never held over a call to the disk, the network or Told.
	queue   *queue
	lanes   map[string]*lane         // By the name of the target.
	leaving map[string]chan struct{} // Of targets that are gone: closed when the last request has ended.
	health  error
	changed chan struct{} // Closed, and replaced, when anything is delivered, given up or on disk.
	closed  bool

	wakeWriter, wakeKeeper chan struct{} // Hold one when there is something to do.
	stopLanes, stopOthers  chan struct{}
	abort                  context.CancelFunc
	requests               context.Context // Of all requests; lives as long as the Sender.
	laneGroup, otherGroup  sync.WaitGroup
	ended                  chan struct{} // Closed when Close has nothing left to wait for.
}

// Open returns a sender whose queue is kept in a file, and begins to write it; targets come with [Sender.Configure], and
// what the file holds is sent from then on. It never fails: where the file cannot be used the queue is one in memory, and
// the file is tried again in the background. path "" is a queue in memory on purpose.
//
// Open waits 2 s for the disk at most, then works in memory until it answers.
func Open(path string, o Options) *Sender {
	o = o.withDefaults()
	s := &Sender{
		path:       path,
		options:    o,
		queue:      newQueue(o.MaxQueued, o.MaxBytes),
		lanes:      map[string]*lane{},
		leaving:    map[string]chan struct{}{},
		changed:    make(chan struct{}),
		wakeWriter: make(chan struct{}, 1),
		wakeKeeper: make(chan struct{}, 1),
		stopLanes:  make(chan struct{}),
		stopOthers: make(chan struct{}),
	}
	s.requests, s.abort = context.WithCancel(context.Background())
	s.otherGroup.Go(s.keep)
	if path == "" {
		return s
	}
	s.health = fmt.Errorf("webhook queue %q: the disk has not answered yet", path)
	w, ready := &writer{s: s}, make(chan struct{})
	s.otherGroup.Go(func() { w.run(ready) })
	timeout := time.NewTimer(openTimeout)
	defer timeout.Stop()
	select {
	case <-ready:
	case <-timeout.C:
	}
	return s
}

// Configure replaces the targets. What waits for a target that stays, by its name, goes on waiting; what waits for one
// that is gone, or whose format changed, waits for it to come back until it is too old. A target that changed is tried at
// once. The error is that of [Target.Validate], or tells of two targets of one name; nothing is changed then. Requests
// that are under way end as they began.
func (s *Sender) Configure(targets []Target) error {
	destinations, err := prepare(targets)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for name, l := range s.lanes {
		if destinations[name] == nil {
			close(l.leave)
			delete(s.lanes, name)
			s.leaving[name] = l.ended
		}
	}
	for name, d := range destinations {
		if l := s.lanes[name]; l == nil {
			l = newLane(s, d, s.leaving[name])
			delete(s.leaving, name)
			s.lanes[name] = l
			s.laneGroup.Go(l.run)
		} else if !reflect.DeepEqual(l.to.target, d.target) {
			l.to = d
			s.queue.unpark(name)
			l.restart()
			signal(l.wake)
		}
	}
	for name, ended := range s.leaving {
		select {
		case <-ended:
			delete(s.leaving, name)
		default:
		}
	}
	return nil
}

// prepare checks targets and compiles them.
func prepare(targets []Target) (map[string]*destination, error) {
	destinations := make(map[string]*destination, len(targets))
	var errs []error
	for i, t := range targets {
		if err := t.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("webhook %d (%s): %w", i+1, t.name(), err))
			continue
		}
		d := newDestination(t)
		if destinations[d.name] != nil {
			errs = append(errs, fmt.Errorf("webhook %d (%s): name: another one has it, want different names", i+1, d.name))
			continue
		}
		destinations[d.name] = d
	}
	return destinations, errors.Join(errs...)
}

// Send queues an event for every target that wants its type. It waits for no disk and no network. After Close the event
// is lost, and told to be.
func (s *Sender) Send(e Event) {
	now := time.Now()
	e = e.clean(now)
	s.mu.Lock()
	var to []*destination
	for _, l := range s.lanes {
		if l.to.target.wants(e.Type) {
			to = append(to, l.to)
		}
	}
	closed := s.closed
	s.mu.Unlock()
	bodies := map[Format][]byte{}
	items := make([]*item, 0, len(to))
	for _, d := range to {
		f := d.target.Format
		if bodies[f] == nil {
			bodies[f] = render(f, e)
		}
		items = append(items, &item{
			target: d.name, format: f, id: e.ID, eventType: e.Type, flag: e.Flag,
			queued: now, arrived: now, body: bodies[f],
		})
	}
	if !closed && !s.enqueue(items) {
		closed = true
	}
	if closed {
		s.options.Told(Report{Type: e.Type, Flag: e.Flag, Err: ErrClosed, Final: true, Dropped: 1})
	}
}

// enqueue returns false after Close.
func (s *Sender) enqueue(items []*item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.queue.add(items...)
	for _, it := range items {
		if l := s.lanes[it.target]; l != nil {
			signal(l.wake)
		}
	}
	s.stir()
	return true
}

// stir has the other goroutines look at the queue. The caller must hold mu.
func (s *Sender) stir() {
	signal(s.wakeWriter)
	if len(s.queue.dropped) > 0 {
		signal(s.wakeKeeper)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Drain waits until everything that was sent before is delivered, given up, or on disk. The error is that of ctx, and
// tells how many events are neither.
func (s *Sender) Drain(ctx context.Context) error {
	s.mu.Lock()
	waiting := s.queue.undurable()
	for {
		n := 0
		for _, it := range waiting {
			if !it.gone && !it.durable {
				waiting[n] = it
				n++
			}
		}
		waiting = waiting[:n]
		changed := s.changed
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("draining webhooks: %d events are neither delivered nor on disk: %w", n, ctx.Err())
		}
		s.mu.Lock()
	}
}

// Health tells why the queue is not on disk: nil when it is, or is in memory on purpose. It wraps [ErrLocked] when
// another process uses the file.
func (s *Sender) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

// Queued is how many events wait, counted once for each target.
func (s *Sender) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue.items)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
