package state

// FlagState is what was flipped at run time for one flag. The zero value is nothing.
type FlagState struct {
	// Trips are the open trips, oldest first: those that no reset names. The flag is off while there is one.
	Trips []Trip
	// Override is the newest order of a person; its Kind is Cleared when there is none.
	Override Override
	// Progress is the newest progress; its Data is nil when there is none.
	Progress Progress
}

// Tripped tells whether a trip is open.
func (f FlagState) Tripped() bool {
	return len(f.Trips) > 0
}

// LastTrip returns the newest open trip; the flag must be tripped.
func (f FlagState) LastTrip() Trip {
	return f.Trips[len(f.Trips)-1]
}

// Zero tells whether nothing is in force for the flag.
func (f FlagState) Zero() bool {
	return len(f.Trips) == 0 && f.Override.Kind == Cleared && f.Progress.Data == nil
}

// flag returns the state of one flag.
func (l *ledger) flag(name string) FlagState {
	var f FlagState
	for _, t := range l.open[name] {
		f.Trips = append(f.Trips, *t)
	}
	if e := l.overrides[name]; e != nil {
		f.Override = *e.record.Override
	}
	if e := l.progress[name]; e != nil {
		f.Progress = *e.record.Progress
	}
	return f
}

// flags returns the state of every flag that has any.
func (l *ledger) flags() map[string]FlagState {
	names := map[string]FlagState{}
	for name := range l.open {
		names[name] = FlagState{}
	}
	for name, e := range l.overrides {
		if e.record.Override.Kind != Cleared {
			names[name] = FlagState{}
		}
	}
	for name, e := range l.progress {
		if e.record.Progress.Data != nil {
			names[name] = FlagState{}
		}
	}
	for name := range names {
		names[name] = l.flag(name)
	}
	return names
}
