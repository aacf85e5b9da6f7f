package state

import (
	"errors"
	"fmt"
	"time"
)

// Trip records that the guard turned a flag off at now, and an audit entry [ActionTripped] by "guard". The flag's state
// has it when Trip returns. Evidence that is not JSON is kept as a JSON string; above [MaxData] bytes only its size is
// kept. Without a flag's name nothing is recorded.
func (s *Store) Trip(now time.Time, in TripInput) (Trip, *Pending) {
	if in.Flag == "" {
		return Trip{}, settled(errors.New("trip: flag: empty, want a name"))
	}
	t := Trip{
		Flag:       cleanText(in.Flag),
		Test:       cleanText(in.Test),
		At:         cleanTime(now),
		Instance:   s.options.Instance,
		Evidence:   cleanData(in.Evidence, MaxData),
		Definition: cleanText(in.Definition),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.ID = s.ledger.ids.next(now)
	p := s.put(record{Trip: &t})
	bare, reason := t, t.Test
	bare.Evidence = nil
	if in.Summary != "" {
		reason += ": " + in.Summary
	}
	s.note(now, AuditEntry{Action: ActionTripped, Flag: t.Flag, By: "guard", Reason: reason, Detail: detail(bare)})
	return t, p
}

// Reset clears the trips of a flag that are open now, and records an audit entry [ActionReset]. The override of the flag
// is another thing and stays. With no open trip nothing is recorded: the zero Reset is returned, and a Pending that is
// done.
func (s *Store) Reset(now time.Time, flag, by, reason string) (Reset, *Pending) {
	flag = cleanText(flag)
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.ledger.open[flag]
	if len(open) == 0 {
		return Reset{}, settled(nil)
	}
	r := Reset{Flag: flag, By: cleanText(by), Reason: cleanText(reason), At: cleanTime(now), ID: s.ledger.ids.next(now)}
	for _, t := range open {
		r.Trips = append(r.Trips, t.ID)
	}
	kept := r
	p := s.put(record{Reset: &kept})
	s.note(now, AuditEntry{
		Action: ActionReset, Flag: flag, By: by, Reason: reason, Detail: detail(map[string][]string{"trips": r.Trips}),
	})
	r.Trips = append([]string(nil), r.Trips...)
	return r, p
}

// Override records what a person orders for a flag, or with [Cleared] the end of it, and an audit entry [ActionEnabled],
// [ActionDisabled] or [ActionCleared]. Trips stay as they are. With an unknown kind or no flag's name nothing is
// recorded.
func (s *Store) Override(now time.Time, flag string, kind OverrideKind, by, reason string) (Override, *Pending) {
	if flag == "" {
		return Override{}, settled(errors.New("override: flag: empty, want a name"))
	}
	if !kind.known() {
		return Override{}, settled(fmt.Errorf("override: flag %q: unknown kind %q, want %q, %q or none",
			flag, kind, Enabled, Disabled))
	}
	o := Override{
		Flag: cleanText(flag), Kind: kind, By: cleanText(by), Reason: cleanText(reason),
		At: cleanTime(now), Instance: s.options.Instance,
	}
	action := map[OverrideKind]string{Enabled: ActionEnabled, Disabled: ActionDisabled, Cleared: ActionCleared}[kind]
	s.mu.Lock()
	defer s.mu.Unlock()
	o.Revision = s.ledger.revision(now)
	kept := o
	p := s.put(record{Override: &kept})
	s.note(now, AuditEntry{Action: action, Flag: o.Flag, By: by, Reason: reason})
	return o, p
}

// SetProgress replaces the progress of a flag; data nil or null clears it. It makes no audit entry. When data is what
// the store has already, nothing is recorded. Data that is not JSON, or more than [MaxData] bytes of it, is refused.
func (s *Store) SetProgress(now time.Time, flag string, data []byte) *Pending {
	if flag == "" {
		return settled(errors.New("progress: flag: empty, want a name"))
	}
	compact, err := progressData(data)
	if err != nil {
		return settled(fmt.Errorf("progress: flag %q: %w", flag, err))
	}
	g := &Progress{Flag: cleanText(flag), Data: compact, At: cleanTime(now), Instance: s.options.Instance}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ledger.progress[g.Flag]
	if (old == nil && g.Data == nil) || (old != nil && string(old.record.Progress.Data) == string(g.Data)) {
		return s.barrier()
	}
	g.Revision = s.ledger.revision(now)
	return s.put(record{Progress: g})
}

// Note records an audit entry of the caller's; ID and At of e are set by the store. Trip, Reset and Override make theirs
// themselves.
func (s *Store) Note(now time.Time, e AuditEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(now, e)
}

// Merge takes over what other stores know: trips and resets by id, overrides and progress by revision. Merging the same
// twice, or in another order, comes to the same. It makes no audit entries. It returns the flags for which anything was
// new, and a Pending for all of it. Records without id or flag are left out. Of resets older than [Options.Retention]
// only those are taken that clear a trip here, so a trip must not be merged without the resets that name it.
func (s *Store) Merge(now time.Time, other Snapshot) (changed []string, p *Pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.ledger.merge(other, now.Add(-s.options.Retention))
	s.signal()
	return changed, s.barrier()
}

// put takes r into memory and has it written. The caller must hold mu.
func (s *Store) put(r record) *Pending {
	p := newPending()
	waiter := p
	if err := s.unwritable(s.ledger); err != nil {
		p.settle(err)
		waiter = nil
	}
	if _, err := s.ledger.put(r, waiter); err != nil {
		p.settle(err)
	}
	s.signal()
	return p
}

// barrier returns a Pending for everything that waits now. The caller must hold mu.
func (s *Store) barrier() *Pending {
	if err := s.unwritable(s.ledger); err != nil && s.ledger.count > 0 {
		return settled(err)
	}
	p := newPending()
	s.ledger.barrier(p)
	return p
}

// unwritable tells why records of a book made now are not going to be written at once. The caller must hold mu.
func (s *Store) unwritable(b book) error {
	switch {
	case s.dir == "":
		return nil
	case s.closed:
		return fmt.Errorf("state directory %q: %w", s.dir, ErrClosed)
	default:
		return b.queue().broken
	}
}

// note takes an audit entry into memory and has it written. The caller must hold mu.
func (s *Store) note(now time.Time, e AuditEntry) {
	s.audit.noteAudit(now, e)
	s.signal()
}
