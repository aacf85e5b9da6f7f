package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"time"
)

// Trip says that the guard turned a flag off. Trips only ever come to be; a [Reset] that names them ends their effect.
type Trip struct {
	// ID is unique in the fleet, 26 characters long, and sorts by time.
	ID string `json:"id"`
	// Flag is the name of the flag that was turned off.
	Flag string `json:"flag"`
	// Test is the test that tripped: errors, performance, traffic, latency.
	Test string `json:"test"`
	// At is when the verdict fell.
	At time.Time `json:"at"`
	// Instance is [Options.Instance] of the store that recorded it.
	Instance string `json:"instance,omitempty"`
	// Evidence is whatever the guard wants told with the trip; nil when there is none. Not to be modified.
	Evidence json.RawMessage `json:"evidence,omitempty"`
	// Definition is the hash of the flag's definition at the time, so that an edit of it can be noticed.
	Definition string `json:"definition,omitempty"`
}

// TripInput is what the caller of [Store.Trip] knows about a trip. The fields are those of [Trip], and for the audit a
// Summary of the evidence in words; it may be empty.
type TripInput struct {
	Flag       string
	Test       string
	Evidence   json.RawMessage
	Definition string
	Summary    string
}

// Reset clears the trips that it names, and no other: one that comes later stays open.
type Reset struct {
	// ID is unique in the fleet, 26 characters long, and sorts by time.
	ID string `json:"id"`
	// Flag is the flag whose trips were cleared.
	Flag string `json:"flag"`
	// Trips are the ids of the cleared trips.
	Trips []string `json:"trips"`
	// By is who cleared them, Reason why. Both may be empty.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// At is when.
	At time.Time `json:"at"`
}

// OverrideKind is what a person ordered for a flag.
type OverrideKind string

const (
	// Cleared is no override: the definition decides. It is the zero value.
	Cleared OverrideKind = ""
	// Enabled is as if the definition said active; targeting stays in force.
	Enabled OverrideKind = "enabled"
	// Disabled is off for everyone.
	Disabled OverrideKind = "disabled"
)

// Override is the newest order of a person for one flag. The zero value is none.
type Override struct {
	Flag string       `json:"flag"`
	Kind OverrideKind `json:"kind"`
	// By is who ordered it, Reason why. Both may be empty.
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// Revision is a hybrid logical clock: microseconds of Unix time, or one more than any revision this store has
	// seen. Of two overrides of one flag the larger revision holds, then the larger instance, then the safer kind.
	Revision uint64 `json:"revision"`
	// Instance is [Options.Instance] of the store that recorded it.
	Instance string `json:"instance,omitempty"`
}

// Progress is what a rollout or a baseline remembers about one flag. Only the newest counts.
type Progress struct {
	Flag string `json:"flag"`
	// Data is the caller's own; nil when it was cleared. Not to be modified.
	Data json.RawMessage `json:"data,omitempty"`
	At   time.Time       `json:"at"`
	// Revision orders the progress of one flag as it does overrides, see [Override].
	Revision uint64 `json:"revision"`
	// Instance is [Options.Instance] of the store that recorded it.
	Instance string `json:"instance,omitempty"`
}

// record is one line of a journal: exactly one field is set. A line with none is of a kind that a newer version writes.
type record struct {
	Trip     *Trip       `json:"trip,omitempty"`
	Reset    *Reset      `json:"reset,omitempty"`
	Override *Override   `json:"override,omitempty"`
	Progress *Progress   `json:"progress,omitempty"`
	Audit    *AuditEntry `json:"audit,omitempty"`
	Feedback *Feedback   `json:"feedback,omitempty"`
}

// decodeRecord reads the payload of a line. A payload of an unknown kind, with a field of an unexpected type or without
// its key gives the zero record: the line is to be kept and has no effect.
func decodeRecord(payload []byte) record {
	var r record
	if json.Unmarshal(payload, &r) != nil {
		return record{}
	}
	switch {
	case r.Trip != nil && r.Trip.ID != "" && r.Trip.Flag != "":
		return record{Trip: r.Trip}
	case r.Reset != nil && r.Reset.ID != "" && len(r.Reset.Trips) > 0:
		return record{Reset: r.Reset}
	case r.Override != nil && r.Override.Flag != "" && r.Override.Kind.known():
		return record{Override: r.Override}
	case r.Progress != nil && r.Progress.Flag != "":
		return record{Progress: r.Progress}
	case r.Audit != nil && r.Audit.ID != "":
		return record{Audit: r.Audit}
	case r.Feedback != nil && r.Feedback.ID != "" && r.Feedback.Flag != "":
		return record{Feedback: r.Feedback}
	}
	return record{}
}

func (k OverrideKind) known() bool {
	return k == Cleared || k == Enabled || k == Disabled
}

// safety orders kinds for the tie of two overrides: off for everyone is the safest.
func (k OverrideKind) safety() int {
	switch k {
	case Disabled:
		return 2
	case Cleared:
		return 1
	default:
		return 0
	}
}

// compare is negative when o gives way to p. Only equal overrides compare as 0 in what matters.
func (o *Override) compare(p *Override) int {
	return cmp.Or(
		cmp.Compare(o.Revision, p.Revision),
		cmp.Compare(o.Instance, p.Instance),
		cmp.Compare(o.Kind.safety(), p.Kind.safety()),
	)
}

// compare is negative when o gives way to p.
func (o *Progress) compare(p *Progress) int {
	return cmp.Or(
		cmp.Compare(o.Revision, p.Revision),
		cmp.Compare(o.Instance, p.Instance),
		bytes.Compare(o.Data, p.Data),
	)
}
