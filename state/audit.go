package state

import (
	"encoding/json"
	"slices"
	"time"
)

// Actions of the audit entries that the store makes by itself.
const (
	ActionTripped  = "tripped"  // Detail: the trip without its evidence.
	ActionReset    = "reset"    // Detail: {"trips": [ids]}.
	ActionEnabled  = "enabled"  // An override.
	ActionDisabled = "disabled" // An override.
	ActionCleared  = "cleared"  // The end of an override.
)

// AuditEntry says who did what to which flag, when and why.
type AuditEntry struct {
	// ID is unique and sorts by time; the store makes it.
	ID string `json:"id"`
	// At is when; the store sets it to the moment it is given.
	At time.Time `json:"at"`
	// Action is what was done: one of the Action constants or a word of the caller's.
	Action string `json:"action"`
	// Flag is the name of the flag; empty for what concerns them all.
	Flag string `json:"flag,omitempty"`
	// By is who did it, Reason why. Both may be empty.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Detail is whatever else is to be told, up to [MaxDetail] bytes; nil when there is nothing. Not to be modified.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// AuditFilter chooses entries. The zero value chooses all.
type AuditFilter struct {
	// Flag, unless empty, is the one flag whose entries are wanted.
	Flag string
	// Limit, unless 0 or negative, is the largest number of entries.
	Limit int
}

// auditLog holds the newest audit entries, oldest first, bounded in number and bytes.
//
// Not safe for concurrent use.
type auditLog struct {
	backlog
	ids      idSource
	entries  []*entry // Ordered by id, but for those of an unknown kind, which stay where they were found.
	known    map[string]*entry
	bytes    int64
	maxCount int
	maxBytes int64

	volatile bool // There is no disk on purpose: what is in memory counts as durable.
}

func newAuditLog(maxCount int, maxBytes int64) *auditLog {
	return &auditLog{known: map[string]*entry{}, maxCount: maxCount, maxBytes: maxBytes}
}

// put appends an entry, whose id it makes.
func (a *auditLog) put(now time.Time, in AuditEntry) {
	in.ID = a.ids.next(now)
	in.At = cleanTime(now)
	in.Action, in.Flag = cleanText(in.Action), cleanText(in.Flag)
	in.By, in.Reason = cleanText(in.By), cleanText(in.Reason)
	in.Detail = cleanData(in.Detail, MaxDetail)
	r := record{Audit: &in}
	line, err := encodeLine(r)
	if err != nil {
		return // Only a time that no JSON can tell does this.
	}
	a.apply(&entry{record: r, line: line, durable: a.volatile})
}

// load takes an entry that was read from the log's own disk. Entries come in their order on disk, which is theirs in
// time unless two processes shared a directory. It returns whether the entry was new.
func (a *auditLog) load(s scanned) bool {
	return a.apply(&entry{record: s.record, line: s.line, durable: true})
}

func (a *auditLog) apply(e *entry) (changed bool) {
	key := auditKey(e)
	if old := a.known[key]; old != nil {
		if e.durable {
			settleAll(a.confirm(old), nil)
		}
		return false
	}
	a.known[key] = e
	a.add(e)
	a.bytes += int64(len(e.line))
	at := len(a.entries)
	for e.record.Audit != nil && at > 0 && a.entries[at-1].record.Audit != nil &&
		a.entries[at-1].record.Audit.ID > e.record.Audit.ID {
		at--
	}
	a.entries = slices.Insert(a.entries, at, e)
	a.bound()
	return !e.dropped
}

// bound drops the oldest entries above the limits.
func (a *auditLog) bound() {
	for len(a.entries) > a.maxCount || (a.bytes > a.maxBytes && len(a.entries) > 1) {
		old := a.entries[0]
		a.entries[0] = nil
		a.entries = a.entries[1:]
		a.bytes -= int64(len(old.line))
		delete(a.known, auditKey(old))
		a.drop(old, nil)
	}
}

func auditKey(e *entry) string {
	if e.record.Audit != nil {
		return e.record.Audit.ID
	}
	return string(e.line)
}

// find returns the chosen entries, newest first.
func (a *auditLog) find(f AuditFilter) []AuditEntry {
	var found []AuditEntry
	for _, e := range slices.Backward(a.entries) {
		if f.Limit > 0 && len(found) == f.Limit {
			break
		}
		if entry := e.record.Audit; entry != nil && (f.Flag == "" || f.Flag == entry.Flag) {
			found = append(found, *entry)
		}
	}
	return found
}

// expire does nothing: the log is bounded by number and bytes.
func (a *auditLog) expire(time.Time) {}

// all returns every entry, oldest first.
func (a *auditLog) all() []*entry {
	return slices.Clone(a.entries)
}

// queue is the way to the entries that are not on disk.
func (a *auditLog) queue() *backlog {
	return &a.backlog
}
