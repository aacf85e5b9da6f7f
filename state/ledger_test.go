package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawRecord draws from so few ids, flags and revisions that records meet.
func drawRecord(t *rapid.T) record {
	flag := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "flag")
	at := start.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Hour)
	revision := uint64(rapid.IntRange(0, 3).Draw(t, "revision"))
	instance := rapid.SampledFrom([]string{"i", "j"}).Draw(t, "instance")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		n := rapid.IntRange(0, 5).Draw(t, "trip")
		// A trip's id fixes all of it.
		return record{Trip: &Trip{ID: fmt.Sprintf("t%d", n), Flag: string(rune('a' + n%2)), At: start}}
	case 1:
		n := rapid.IntRange(0, 62).Draw(t, "reset")
		r := Reset{ID: fmt.Sprintf("r%d", n), Flag: "a", At: start.Add(time.Duration(n) * time.Minute)}
		for i := range 6 {
			if (n+1)>>i&1 == 1 {
				r.Trips = append(r.Trips, fmt.Sprintf("t%d", i))
			}
		}
		return record{Reset: &r}
	case 2:
		kind := rapid.SampledFrom([]OverrideKind{Cleared, Enabled, Disabled}).Draw(t, "override")
		return record{Override: &Override{Flag: flag, Kind: kind, Revision: revision, Instance: instance, At: start}}
	case 3:
		data := rapid.SampledFrom([]json.RawMessage{nil, []byte("1"), []byte("2")}).Draw(t, "data")
		return record{Progress: &Progress{Flag: flag, Data: data, Revision: revision, Instance: instance, At: start}}
	default:
		return record{Override: &Override{Flag: flag, Kind: Disabled, Revision: revision, Instance: instance, At: at}}
	}
}

// bare leaves out what the order may decide: who is told as the author among the same overrides.
func bare(s Snapshot) Snapshot {
	for i := range s.Overrides {
		s.Overrides[i].At = time.Time{}
	}
	return s
}

func TestLedgerIsTheSameInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(rapid.Custom(drawRecord), 0, 30).Draw(t, "records")
		other := rapid.Permutation(records).Draw(t, "other order")
		other = append(other, records[:len(records)/2]...) // Some of them twice.
		a, b := newLedger(), newLedger()
		for _, r := range records {
			if _, err := a.put(r, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range other {
			b.put(r, nil)
		}
		if d := cmp.Diff(bare(a.snapshot()), bare(b.snapshot())); d != "" {
			t.Fatalf("snapshots differ (-one +other):\n%s", d)
		}
		fa, fb := a.flags(), b.flags()
		for name := range fa {
			if d := cmp.Diff(ids(fa[name].Trips), ids(fb[name].Trips)); d != "" {
				t.Fatalf("open trips of %s differ:\n%s", name, d)
			}
		}
		if d := cmp.Diff(slices.Sorted(maps.Keys(fa)), slices.Sorted(maps.Keys(fb))); d != "" {
			t.Fatalf("flags differ:\n%s", d)
		}

		// Trips minus resets, computed plainly.
		cleared := map[string]bool{}
		for _, r := range records {
			if r.Reset != nil {
				for _, id := range r.Reset.Trips {
					cleared[id] = true
				}
			}
		}
		want := map[string]bool{}
		for _, r := range records {
			if r.Trip != nil && !cleared[r.Trip.ID] {
				want[r.Trip.ID] = true
			}
		}
		got := map[string]bool{}
		for _, f := range fa {
			for _, tr := range f.Trips {
				got[tr.ID] = true
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("open trips (-want +got):\n%s", d)
		}

		// And through lines, or a merge, to a third one.
		c, d := newLedger(), newLedger()
		for _, e := range a.all() {
			payload, ok := checkLine(e.line[:len(e.line)-1])
			if !ok {
				t.Fatalf("checksum of %q", e.line)
			}
			c.load(scanned{record: decodeRecord(payload), line: e.line})
		}
		d.merge(a.snapshot(), time.Time{})
		for name, l := range map[string]*ledger{"read": c, "merged": d} {
			if d := cmp.Diff(a.snapshot(), l.snapshot()); d != "" {
				t.Fatalf("%s (-want +got):\n%s", name, d)
			}
		}
		if c.count != 0 || c.durable != len(a.all()) {
			t.Fatalf("read: %d wait, %d durable, want 0, %d", c.count, c.durable, len(a.all()))
		}
		if d.count != len(d.all()) {
			t.Fatalf("merged: %d wait, want all %d", d.count, len(d.all()))
		}
	})
}

func ids(trips []Trip) []string {
	found := []string{}
	for _, t := range trips {
		found = append(found, t.ID)
	}
	return found
}

func TestLedgerExpire(t *testing.T) {
	l := newLedger()
	old, recent := start.Add(-100*24*time.Hour), start.Add(-10*24*time.Hour)
	for _, r := range []record{
		{Trip: &Trip{ID: "open", Flag: "a", At: old}},
		{Trip: &Trip{ID: "cleared long ago", Flag: "a", At: old}},
		{Trip: &Trip{ID: "cleared lately", Flag: "a", At: old}},
		{Trip: &Trip{ID: "cleared twice", Flag: "a", At: old}},
		{Reset: &Reset{ID: "r1", Flag: "a", Trips: []string{"cleared long ago", "cleared twice"}, At: old}},
		{Reset: &Reset{ID: "r2", Flag: "a", Trips: []string{"cleared lately", "cleared twice"}, At: recent}},
		{Reset: &Reset{ID: "r3", Flag: "a", Trips: []string{"never came"}, At: old}},
		{Override: &Override{Flag: "a", Kind: Disabled, At: old}},
		{Override: &Override{Flag: "b", Kind: Cleared, At: old}},
		{Override: &Override{Flag: "c", Kind: Cleared, At: recent}},
		{Progress: &Progress{Flag: "a", Data: []byte("1"), At: old}},
		{Progress: &Progress{Flag: "b", At: old}},
	} {
		if _, err := l.put(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	l.expire(start.Add(-90 * 24 * time.Hour))
	s := l.snapshot()
	if d := cmp.Diff([]string{"cleared lately", "cleared twice", "open"}, ids(s.Trips)); d != "" {
		t.Errorf("trips (-want +got):\n%s", d)
	}
	if len(s.Resets) != 1 || len(s.Overrides) != 2 || len(s.Progress) != 1 {
		t.Errorf("%d resets, %d overrides, %d progress; want 1, 2, 1", len(s.Resets), len(s.Overrides), len(s.Progress))
	}
	if got := ids(l.flag("a").Trips); len(got) != 1 || got[0] != "open" {
		t.Errorf("open trips %v", got)
	}
	if l.count != len(l.all()) {
		t.Errorf("%d wait of %d", l.count, len(l.all()))
	}
	// What has expired does not come back by a merge, and a trip is never opened by it.
	limit := start.Add(-90 * 24 * time.Hour)
	changed := l.merge(Snapshot{
		Trips:  []Trip{{ID: "cleared long ago", Flag: "a", At: old}},
		Resets: []Reset{{ID: "r1", Flag: "a", Trips: []string{"cleared long ago", "cleared twice"}, At: old}},
	}, limit)
	if len(changed) != 0 || len(l.snapshot().Trips) != 3 {
		t.Errorf("merge of what has expired: changed %v, %d trips", changed, len(l.snapshot().Trips))
	}
	// An old reset still clears a trip that is open here.
	changed = l.merge(Snapshot{Resets: []Reset{{ID: "r4", Flag: "a", Trips: []string{"open"}, At: old}}}, limit)
	if len(changed) != 1 || l.flag("a").Tripped() {
		t.Errorf("merge of an old reset: changed %v, tripped %v", changed, l.flag("a").Tripped())
	}
}

func TestRevisionNeverRepeats(t *testing.T) {
	l := newLedger()
	l.put(record{Override: &Override{Flag: "a", Revision: 1 << 60}}, nil)
	if got := l.revision(start); got != 1<<60+1 {
		t.Errorf("revision %d behind a clock that is ahead, want one more", got)
	}
	l.put(record{Override: &Override{Flag: "a", Revision: math.MaxUint64}}, nil)
	if got := l.revision(start); got != math.MaxUint64 {
		t.Errorf("revision %d at the end, want no overflow", got)
	}
	if got := newLedger().revision(start); got != uint64(start.UnixMicro()) {
		t.Errorf("first revision %d, want the time", got)
	}
}

func TestBacklogForgetsWhatWasReplaced(t *testing.T) {
	l := newLedger()
	p := newPending()
	for i := range 100_000 {
		l.put(record{Progress: &Progress{Flag: "a", Data: fmt.Append(nil, i), Revision: uint64(i)}}, p)
	}
	if l.count != 1 || len(l.waiting) > 2000 {
		t.Errorf("%d wait, %d kept; want 1, few", l.count, len(l.waiting))
	}
	for _, e := range l.batch(1) {
		settleAll(l.confirm(e), nil)
	}
	select {
	case <-p.Done():
	default:
		t.Error("who waits for a replaced record is told nothing")
	}
}
