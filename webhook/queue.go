package webhook

import (
	"fmt"
	"slices"
	"time"
)

// item is one event on its way to one target. The first fields never change, the others belong to the queue.
type item struct {
	target    string
	format    Format
	id        string
	eventType string
	flag      string
	queued    time.Time
	body      []byte

	arrived  time.Time // What the age counts from: queued, unless that is in the future.
	attempts int
	answered int       // Attempts that failed though the peer answered.
	parked   bool      // It failed so often that others go first,
	tried    time.Time // the last time at.
	busy     bool      // Its request is under way.
	gone     bool      // Delivered, given up, expired or dropped.

	key     uint64 // In the file; 0 while not known.
	touched bool   // It may be in the file.
	durable bool   // It is.
}

// identity tells items apart, in memory and in the file.
func (it *item) identity() string {
	return fmt.Sprintf("%s\n%s\n%d", it.target, it.id, it.queued.UnixNano())
}

// size is what an item counts for, in bytes.
func (it *item) size() int64 {
	return int64(len(it.body) + len(it.target) + len(it.id) + len(it.eventType) + len(it.flag) + 64)
}

// queue is everything that waits, in order of arrival. Memory is the truth, the file follows.
//
// Not safe for concurrent use.
type queue struct {
	items    []*item
	bytes    int64
	maxItems int
	maxBytes int64

	ended   map[string]uint64 // By identity, what is gone and may still be in the file, and its key there, if known.
	dropped map[string]int    // By target, what went for want of room and was not told.
}

func newQueue(maxItems int, maxBytes int64) *queue {
	return &queue{maxItems: maxItems, maxBytes: maxBytes, ended: map[string]uint64{}, dropped: map[string]int{}}
}

// add appends items.
func (q *queue) add(items ...*item) {
	for _, it := range items {
		q.items = append(q.items, it)
		q.bytes += it.size()
	}
	q.shrink()
}

// adopt puts items of an earlier process before all others.
func (q *queue) adopt(items []*item) {
	q.items = slices.Concat(items, q.items)
	for _, it := range items {
		q.bytes += it.size()
	}
	q.shrink()
}

// shrink drops the oldest items until the bounds are kept; one whose request is under way only when there is no other.
func (q *queue) shrink() {
	for len(q.items) > q.maxItems || q.bytes > q.maxBytes {
		i := max(0, slices.IndexFunc(q.items, func(it *item) bool { return !it.busy }))
		q.dropped[q.items[i].target]++
		q.remove(q.items[i])
	}
}

// remove ends an item.
func (q *queue) remove(it *item) {
	i := slices.Index(q.items, it)
	if i < 0 {
		return
	}
	q.items = slices.Delete(q.items, i, i+1)
	q.bytes -= it.size()
	it.gone = true
	if it.touched {
		q.ended[it.identity()] = it.key
	}
}

// expire ends the items that arrived before limit, but for those whose requests are under way, and returns them.
func (q *queue) expire(limit time.Time) (expired []*item) {
	for _, it := range slices.Clone(q.items) {
		if it.arrived.Before(limit) && !it.busy {
			expired = append(expired, it)
			q.remove(it)
		}
	}
	return expired
}

// heads returns the item of a target whose turn it is, and the parked one whose turn it is, nil where there is none.
// Those that arrived before limit are left out.
func (q *queue) heads(target string, f Format, limit time.Time) (fresh, parked *item) {
	for _, it := range q.items {
		switch {
		case it.target != target || it.format != f || it.arrived.Before(limit):
		case it.parked && (parked == nil || it.tried.Before(parked.tried)):
			parked = it
		case !it.parked && fresh == nil:
			fresh = it
		}
	}
	return fresh, parked
}

// supersede ends the parked items that came before it and would change an incident of PagerDuty back to what it was
// then, and returns them.
func (q *queue) supersede(it *item) (ended []*item) {
	if it.format != PagerDuty || incidentOf(it.eventType) == "" {
		return nil
	}
	for _, old := range slices.Clone(q.items) {
		if old == it {
			break
		}
		if old.parked && !old.busy && old.target == it.target && old.format == it.format && old.flag == it.flag && incidentOf(old.eventType) == incidentOf(it.eventType) {
			ended = append(ended, old)
			q.remove(old)
		}
	}
	return ended
}

// unpark puts all items of a target back in order.
func (q *queue) unpark(target string) {
	for _, it := range q.items {
		if it.target == target {
			it.parked, it.answered = false, 0
		}
	}
}

// change is what the file lacks.
type change struct {
	puts    []*item
	deletes map[string]uint64
}

// pending returns what the file lacks, and marks that it may be there from now on.
func (q *queue) pending() change {
	c := change{deletes: map[string]uint64{}}
	for _, it := range q.items {
		if !it.durable {
			it.touched = true
			c.puts = append(c.puts, it)
		}
	}
	for identity, key := range q.ended {
		if key != 0 {
			c.deletes[identity] = key
		}
	}
	return c
}

// confirm notes that a change is in the file; the items have their keys by then.
func (q *queue) confirm(c change, keys []uint64) {
	for identity := range c.deletes {
		delete(q.ended, identity)
	}
	for i, it := range c.puts {
		it.key, it.durable = keys[i], true
		if it.gone { // While it was written.
			q.ended[it.identity()] = it.key
		}
	}
}

// reconcile takes over what a file holds, after it was opened: items that are known have been written, those that ended
// have to go, and all others were left by an earlier process, which come first. What was queued after now, by a clock
// that was set back since, counts as queued now. It returns how many were taken over.
func (q *queue) reconcile(found []stored, now time.Time) int {
	known := make(map[string]*item, len(q.items))
	for _, it := range q.items {
		it.key, it.durable = 0, false
		known[it.identity()] = it
	}
	ended := q.ended
	q.ended = map[string]uint64{}
	var adopted []*item
	for _, f := range found {
		identity := f.item.identity()
		if it := known[identity]; it != nil {
			it.key, it.durable, it.touched = f.key, f.key != 0, true
			continue
		}
		if _, ok := ended[identity]; ok {
			if f.key != 0 {
				q.ended[identity] = f.key
			}
			continue
		}
		it := f.item
		it.key, it.durable, it.touched = f.key, f.key != 0, true
		if it.arrived = it.queued; it.arrived.After(now) {
			it.arrived = now
		}
		known[identity] = it
		adopted = append(adopted, it)
	}
	q.adopt(adopted)
	return len(adopted)
}

// undurable are the items that are not in the file.
func (q *queue) undurable() (items []*item) {
	for _, it := range q.items {
		if !it.durable {
			items = append(items, it)
		}
	}
	return items
}
