package state

import (
	"encoding/json"
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

// noteAudit takes an audit entry, whose id and time the store makes.
func (d *diary) noteAudit(now time.Time, in AuditEntry) {
	in.ID = d.ids.next(now)
	in.At = cleanTime(now)
	in.Action, in.Flag = cleanText(in.Action), cleanText(in.Flag)
	in.By, in.Reason = cleanText(in.By), cleanText(in.Reason)
	in.Detail = cleanData(in.Detail, MaxDetail)
	d.put(record{Audit: &in}, nil)
}

// findAudit returns the chosen entries, newest first.
func (d *diary) findAudit(f AuditFilter) (found []AuditEntry) {
	for r := range d.newest() {
		if f.Limit > 0 && len(found) == f.Limit {
			break
		}
		if e := r.Audit; e != nil && (f.Flag == "" || f.Flag == e.Flag) {
			found = append(found, *e)
		}
	}
	return found
}
