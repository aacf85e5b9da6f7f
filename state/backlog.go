package state

import "slices"

// entry is one record in memory that belongs on the disk.
type entry struct {
	record  record
	line    []byte // Never modified: the writer reads it without a lock.
	durable bool   // Whether it is written and synced.
	dropped bool   // Whether something newer took its place.
	waiters []*Pending
}

// backlog knows which records are still to be written, in the order in which they came, and what the ones on disk come
// to. Records that were replaced before they were written never are.
//
// Not safe for concurrent use.
type backlog struct {
	waiting      []*entry // May hold dropped and durable ones, until pruned.
	count        int      // Of those in waiting that are neither.
	durable      int
	durableBytes int64
	broken       error // Why none can be written now.
}

// add queues e, which is not durable, or counts it when it is.
func (b *backlog) add(e *entry) {
	if e.durable {
		b.durable++
		b.durableBytes += int64(len(e.line))
		settleAll(e.waiters, nil)
		e.waiters = nil
		return
	}
	b.waiting = append(b.waiting, e)
	b.count++
	// Without a disk nobody takes batches, and replaced records would pile up.
	if len(b.waiting) > 2*b.count+1000 {
		b.prune()
	}
}

// prune leaves only records that wait in waiting.
func (b *backlog) prune() {
	b.waiting = slices.DeleteFunc(b.waiting, func(e *entry) bool { return e.dropped || e.durable })
}

// drop forgets e because of a newer record. Whoever waits for e waits for that one instead, or is content when there is
// none.
func (b *backlog) drop(e, newer *entry) {
	e.dropped = true
	if e.durable {
		b.durable--
		b.durableBytes -= int64(len(e.line))
	} else {
		b.count--
	}
	if newer != nil && !newer.durable {
		newer.waiters = append(e.waiters, newer.waiters...) // This way round it is not copied each time.
	} else {
		settleAll(e.waiters, nil)
	}
	e.waiters = nil
}

// batch returns the oldest records that wait, at least one if any does, of about limit bytes.
func (b *backlog) batch(limit int) (batch []*entry) {
	b.prune()
	for _, e := range b.waiting {
		if limit <= 0 {
			break
		}
		batch = append(batch, e)
		limit -= len(e.line)
	}
	return batch
}

// confirm marks e as written and synced.
func (b *backlog) confirm(e *entry) (waiters []*Pending) {
	if e.durable || e.dropped {
		return nil
	}
	e.durable = true
	b.count--
	b.durable++
	b.durableBytes += int64(len(e.line))
	waiters, e.waiters = e.waiters, nil
	return waiters
}

// restart queues all the given records, in their order, whether or not they were on a disk once.
func (b *backlog) restart(all []*entry) {
	*b = backlog{}
	for _, e := range all {
		e.durable = false
		b.add(e)
	}
}

// barrier settles p when everything that waits now is on disk.
func (b *backlog) barrier(p *Pending) {
	for i := len(b.waiting) - 1; i >= 0; i-- {
		if e := b.waiting[i]; !e.dropped && !e.durable {
			e.waiters = append(e.waiters, p)
			return
		}
	}
	p.settle(nil)
}

// abandon takes over those who wait for records of the backlog.
func (b *backlog) abandon() (waiters []*Pending) {
	for _, e := range b.waiting {
		waiters = append(waiters, e.waiters...)
		e.waiters = nil
	}
	return waiters
}

func settleAll(waiters []*Pending, err error) {
	for _, p := range waiters {
		p.settle(err)
	}
}

func linesOf(entries []*entry) [][]byte {
	lines := make([][]byte, len(entries))
	for i, e := range entries {
		lines[i] = e.line
	}
	return lines
}
