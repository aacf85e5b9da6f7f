package state

import (
	"maps"
	"slices"
	"time"
)

// Snapshot is everything a store knows, to be compared and merged with what others know. Trips and resets are sets, by
// id; of overrides and progress there is one a flag, the newest, and it may be a cleared one.
type Snapshot struct {
	Trips     []Trip
	Resets    []Reset
	Overrides []Override
	Progress  []Progress
}

// snapshot returns everything, ordered by id or by flag.
func (l *ledger) snapshot() Snapshot {
	var s Snapshot
	for _, id := range slices.Sorted(maps.Keys(l.trips)) {
		s.Trips = append(s.Trips, *l.trips[id].record.Trip)
	}
	for _, id := range slices.Sorted(maps.Keys(l.resets)) {
		r := *l.resets[id].record.Reset
		r.Trips = slices.Clone(r.Trips)
		s.Resets = append(s.Resets, r)
	}
	for _, flag := range slices.Sorted(maps.Keys(l.overrides)) {
		s.Overrides = append(s.Overrides, *l.overrides[flag].record.Override)
	}
	for _, flag := range slices.Sorted(maps.Keys(l.progress)) {
		s.Progress = append(s.Progress, *l.progress[flag].record.Progress)
	}
	return s
}

// merge takes what another store knows. Resets from before limit are past the time for which records are kept: they are
// taken only for the sake of a trip that is here, and a trip that one of them names and that is not here stays away.
// It returns the flags for which anything was new.
func (l *ledger) merge(s Snapshot, limit time.Time) (changed []string) {
	flags := map[string]bool{}
	take := func(flag string, r record) {
		// A record that cannot be encoded has a time that no JSON can tell: it came from no store.
		if ok, err := l.put(r, nil); ok && err == nil {
			flags[flag] = true
		}
	}
	past := map[string]bool{}
	for _, r := range s.Resets {
		if r.ID == "" || len(r.Trips) == 0 {
			continue
		}
		r.Trips = slices.Clone(r.Trips)
		if r.At.Before(limit) {
			here := false
			for _, id := range r.Trips {
				here = here || (l.trips[id] != nil && l.cleared[id] == nil)
				past[id] = true
			}
			if !here {
				continue
			}
		}
		take(r.Flag, record{Reset: &r})
	}
	for _, t := range s.Trips {
		if t.ID == "" || t.Flag == "" || (past[t.ID] && l.trips[t.ID] == nil && l.cleared[t.ID] == nil) {
			continue
		}
		t.Evidence = cleanData(t.Evidence, MaxData)
		take(t.Flag, record{Trip: &t})
	}
	for _, o := range s.Overrides {
		if o.Flag != "" && o.Kind.known() && !(o.Kind == Cleared && o.At.Before(limit) && l.overrides[o.Flag] == nil) {
			take(o.Flag, record{Override: &o})
		}
	}
	for _, g := range s.Progress {
		g.Data = cleanData(g.Data, MaxData)
		if g.Flag != "" && !(g.Data == nil && g.At.Before(limit) && l.progress[g.Flag] == nil) {
			take(g.Flag, record{Progress: &g})
		}
	}
	return slices.Sorted(maps.Keys(flags))
}
