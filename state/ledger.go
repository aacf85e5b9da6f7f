package state

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// ledger is what the records come to: the open trips, the override and the progress of each flag. Records may be put in
// in any order and any number of times, with the same result: trips and resets are two sets that grow by id, overrides
// and progress are ordered by revision.
//
// Not safe for concurrent use.
type ledger struct {
	backlog
	ids   idSource
	clock uint64 // The largest revision seen.
	seq   uint64 // Of the last entry, for the order of a compaction.

	volatile bool // There is no disk on purpose: what is in memory counts as durable.

	trips     map[string]*ledgerEntry // By trip id.
	resets    map[string]*ledgerEntry // By reset id.
	overrides map[string]*ledgerEntry // By flag.
	progress  map[string]*ledgerEntry // By flag.
	unknown   map[string]*ledgerEntry // By line: kinds that a newer version writes.

	open    map[string][]*Trip // By flag, ordered by id.
	cleared map[string]*Reset  // By trip id: the latest reset that names it.
}

type ledgerEntry struct {
	entry
	seq uint64
}

func newLedger() *ledger {
	return &ledger{
		trips:     map[string]*ledgerEntry{},
		resets:    map[string]*ledgerEntry{},
		overrides: map[string]*ledgerEntry{},
		progress:  map[string]*ledgerEntry{},
		unknown:   map[string]*ledgerEntry{},
		open:      map[string][]*Trip{},
		cleared:   map[string]*Reset{},
	}
}

// revision returns the next tick of the hybrid logical clock.
func (l *ledger) revision(now time.Time) uint64 {
	return max(uint64(max(now.UnixMicro(), 0)), min(l.clock, math.MaxUint64-1)+1)
}

// put takes r, made here or by another store, into memory and queues it for the disk. It returns whether anything
// changed; p, which may be nil, is settled when the ledger's disk holds r or something newer.
func (l *ledger) put(r record, p *Pending) (changed bool, err error) {
	line, err := encodeLine(r)
	if err != nil {
		return false, err
	}
	e := &ledgerEntry{entry: entry{record: r, line: line, durable: l.volatile}}
	if p != nil {
		e.waiters = []*Pending{p}
	}
	return l.apply(e), nil
}

// load takes a record that was read from the ledger's own disk, where it is durable. It returns whether it was new.
func (l *ledger) load(s scanned) bool {
	return l.apply(&ledgerEntry{entry: entry{record: s.record, line: s.line, durable: true}})
}

func (l *ledger) apply(e *ledgerEntry) (changed bool) {
	l.seq++
	e.seq = l.seq
	switch r := e.record; {
	case r.Trip != nil:
		if changed = l.keep(l.trips, r.Trip.ID, e, 0); changed && l.cleared[r.Trip.ID] == nil {
			l.openTrip(r.Trip)
		}
	case r.Reset != nil:
		if changed = l.keep(l.resets, r.Reset.ID, e, 0); changed {
			l.clearTrips(r.Reset)
		}
	case r.Override != nil:
		l.clock = max(l.clock, r.Override.Revision)
		order := 1
		if old := l.overrides[r.Override.Flag]; old != nil {
			order = r.Override.compare(old.record.Override)
		}
		changed = l.keep(l.overrides, r.Override.Flag, e, order)
	case r.Progress != nil:
		l.clock = max(l.clock, r.Progress.Revision)
		order := 1
		if old := l.progress[r.Progress.Flag]; old != nil {
			order = r.Progress.compare(old.record.Progress)
		}
		changed = l.keep(l.progress, r.Progress.Flag, e, order)
	default:
		changed = l.keep(l.unknown, string(e.line), e, 0)
	}
	return changed
}

// keep puts e in the place of the entry with the same key when order is positive or there is none. When order is 0 the
// two are the same record, which is durable when one of them is.
func (l *ledger) keep(m map[string]*ledgerEntry, key string, e *ledgerEntry, order int) bool {
	old := m[key]
	switch {
	case old == nil:
		m[key] = e
		l.add(&e.entry)
		return true
	case order > 0:
		m[key] = e
		l.add(&e.entry)
		l.drop(&old.entry, &e.entry)
		return true
	}
	if order == 0 && e.durable {
		settleAll(l.confirm(&old.entry), nil)
	}
	if old.durable {
		settleAll(e.waiters, nil)
	} else {
		old.waiters = append(old.waiters, e.waiters...)
	}
	return false
}

func (l *ledger) openTrip(t *Trip) {
	trips := l.open[t.Flag]
	i, _ := slices.BinarySearchFunc(trips, t.ID, func(t *Trip, id string) int { return strings.Compare(t.ID, id) })
	l.open[t.Flag] = slices.Insert(trips, i, t)
}

func (l *ledger) clearTrips(r *Reset) {
	for _, id := range r.Trips {
		if old := l.cleared[id]; old == nil || old.At.Before(r.At) {
			l.cleared[id] = r
		}
		if e := l.trips[id]; e != nil {
			flag := e.record.Trip.Flag
			l.open[flag] = slices.DeleteFunc(l.open[flag], func(t *Trip) bool { return t.ID == id })
			if len(l.open[flag]) == 0 {
				delete(l.open, flag)
			}
		}
	}
}

// expire drops what has had no effect since before limit: cleared trips with all their resets, and cleared overrides
// and progress. Open trips stay whatever their age.
func (l *ledger) expire(limit time.Time) {
	remove := func(m map[string]*ledgerEntry, key string) {
		l.drop(&m[key].entry, nil)
		delete(m, key)
	}
	for id := range l.trips {
		if r := l.cleared[id]; r != nil && r.At.Before(limit) {
			remove(l.trips, id)
		}
	}
	for id, e := range l.resets {
		if e.record.Reset.At.Before(limit) {
			remove(l.resets, id)
		}
	}
	for id, r := range l.cleared {
		if r.At.Before(limit) {
			delete(l.cleared, id)
		}
	}
	for flag, e := range l.overrides {
		if o := e.record.Override; o.Kind == Cleared && o.At.Before(limit) {
			remove(l.overrides, flag)
		}
	}
	for flag, e := range l.progress {
		if p := e.record.Progress; p.Data == nil && p.At.Before(limit) {
			remove(l.progress, flag)
		}
	}
}

// all returns every record there is, oldest first.
func (l *ledger) all() []*entry {
	var found []*ledgerEntry
	for _, m := range []map[string]*ledgerEntry{l.trips, l.resets, l.overrides, l.progress, l.unknown} {
		for _, e := range m {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *ledgerEntry) int { return cmp.Compare(a.seq, b.seq) })
	entries := make([]*entry, len(found))
	for i, e := range found {
		entries[i] = &e.entry
	}
	return entries
}

// queue is the way to the records that are not on disk.
func (l *ledger) queue() *backlog {
	return &l.backlog
}
