package state

import (
	"iter"
	"slices"
	"time"
)

// diary holds the newest records of one kind, oldest first, bounded in number, bytes and age: the audit, or feedback.
// Of a kind where a later record takes the place of an earlier one, the later is kept.
//
// Not safe for concurrent use.
type diary struct {
	backlog
	ids      idSource
	entries  []*entry // Ordered by id, but for those of an unknown kind, which stay where they were found.
	known    map[string]*entry
	voices   map[string]*entry // By what a later record takes the place of.
	bytes    int64
	maxCount int
	maxBytes int64
	ages     bool // Records older than [Options.Retention] are dropped.

	volatile bool // There is no disk on purpose: what is in memory counts as durable.
}

func newDiary(maxCount int, maxBytes int64) *diary {
	return &diary{known: map[string]*entry{}, voices: map[string]*entry{}, maxCount: maxCount, maxBytes: maxBytes}
}

// diaryID is the id of a record that a diary holds; empty for another kind.
func (r *record) diaryID() string {
	switch {
	case r.Audit != nil:
		return r.Audit.ID
	case r.Feedback != nil:
		return r.Feedback.ID
	}
	return ""
}

// put appends a record that has its id. p, if any, waits for the disk.
func (d *diary) put(r record, p *Pending) {
	line, err := encodeLine(r)
	if err != nil { // Only a time that no JSON can tell does this.
		if p != nil {
			p.settle(err)
		}
		return
	}
	e := &entry{record: r, line: line, durable: d.volatile}
	if p != nil {
		e.waiters = []*Pending{p}
	}
	d.apply(e)
}

// load takes a record that was read from the diary's own disk. They come in their order on disk, which is theirs in
// time unless two processes shared a directory. It returns whether the record was new.
func (d *diary) load(s scanned) bool {
	return d.apply(&entry{record: s.record, line: s.line, durable: true})
}

func (d *diary) apply(e *entry) (changed bool) {
	key := diaryKey(e)
	if old := d.known[key]; old != nil {
		if e.durable {
			settleAll(d.confirm(old), nil)
		}
		return false
	}
	id := e.record.diaryID()
	voice := e.record.voice()
	if old := d.voices[voice]; voice != "" && old != nil && old.record.diaryID() > id {
		settleAll(e.waiters, nil) // What took its place is here already.
		return false
	}
	d.ids.after(id)
	d.known[key] = e
	d.add(e)
	d.bytes += int64(len(e.line))
	at := len(d.entries)
	for id != "" && at > 0 && d.entries[at-1].record.diaryID() > id {
		at--
	}
	d.entries = slices.Insert(d.entries, at, e)
	if voice != "" {
		old := d.voices[voice]
		d.voices[voice] = e
		if old != nil {
			d.entries = slices.DeleteFunc(d.entries, func(o *entry) bool { return o == old })
			d.forget(old, e)
		}
	}
	d.bound()
	return !e.dropped
}

// bound drops the oldest records above the limits.
func (d *diary) bound() {
	for len(d.entries) > d.maxCount || (d.bytes > d.maxBytes && len(d.entries) > 1) {
		d.dropOldest()
	}
}

func (d *diary) dropOldest() {
	old := d.entries[0]
	d.entries[0] = nil
	d.entries = d.entries[1:]
	d.forget(old, nil)
}

// forget lets go of a record that is no longer among the entries.
func (d *diary) forget(old, newer *entry) {
	d.bytes -= int64(len(old.line))
	delete(d.known, diaryKey(old))
	if voice := old.record.voice(); d.voices[voice] == old {
		delete(d.voices, voice)
	}
	d.drop(old, newer)
}

func diaryKey(e *entry) string {
	if id := e.record.diaryID(); id != "" {
		return id
	}
	return string(e.line)
}

// newest gives the records, newest first.
func (d *diary) newest() iter.Seq[record] {
	return func(yield func(record) bool) {
		for _, e := range slices.Backward(d.entries) {
			if !yield(e.record) {
				return
			}
		}
	}
}

// expire drops what is older than the limit, in a diary whose records age.
func (d *diary) expire(limit time.Time) {
	for d.ages && len(d.entries) > 0 {
		if f := d.entries[0].record.Feedback; f != nil && !f.At.Before(limit) {
			return
		}
		d.dropOldest()
	}
}

// all returns every entry, oldest first.
func (d *diary) all() []*entry {
	return slices.Clone(d.entries)
}

// queue is the way to the entries that are not on disk.
func (d *diary) queue() *backlog {
	return &d.backlog
}
