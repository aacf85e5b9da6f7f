package state

import (
	"strings"
	"testing"
	"time"
)

func TestIDsAreUniqueAndOrdered(t *testing.T) {
	var s idSource
	last := ""
	now := start
	for i := range 10_000 {
		switch {
		case i%10 == 0:
			now = now.Add(time.Millisecond)
		case i%77 == 0:
			now = now.Add(-time.Hour) // The clock was set back.
		}
		id := s.next(now)
		if len(id) != 26 || id <= last {
			t.Fatalf("id %q after %q", id, last)
		}
		last = id
	}
}

func TestIDHoldsTheTime(t *testing.T) {
	var s idSource
	// The example of the ULID specification: 1469918176385 ms is 01ARYZ6S41.
	if id := s.next(time.UnixMilli(1469918176385)); !strings.HasPrefix(id, "01ARYZ6S41") {
		t.Errorf("id %q, want prefix 01ARYZ6S41", id)
	}
}

func TestIDAtTheEdges(t *testing.T) {
	for _, now := range []time.Time{{}, time.Unix(-1, 0), time.UnixMilli(1 << 60)} {
		var s idSource
		if a, b := s.next(now), s.next(now); len(a) != 26 || a[0] > '7' || a >= b {
			t.Errorf("at %v: ids %q, %q", now, a, b)
		}
	}
	s := idSource{high: 5<<16 | 0xffff, low: ^uint64(0)}
	if id := s.next(time.UnixMilli(5)); !strings.HasPrefix(id, encodeID(6<<16, 0)[:10]) {
		t.Errorf("id %q after the last of its millisecond, want one of the next", id)
	}
}
