package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// MaxPoints bounds a [Series].
const MaxPoints = 5000

// Query returns what happened to a flag from a time, in the step that it is in, until before another: in minutes where
// they go back to from, which is two days when the file has room for them, else in five minutes, which is two weeks,
// else in hours; and in no more than [MaxPoints], the newest.
//
// running are minutes that are not over, and so not added yet: they are counted in.
//
// It waits for the disk for a second at most. When the disk cannot be read, there is an error, and the series has what
// is known of the last [MemoryMinutes] minutes.
func (h *History) Query(flag string, from, to time.Time, running ...Running) (Series, error) {
	if !from.Before(to) {
		return Series{}, fmt.Errorf("querying history %q: from %s to %s: want a time before another", h.path,
			from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	first, end := clampMinute(from, false), clampMinute(to, true)
	type found struct {
		*resolution
		rows map[uint32]*Row
	}
	begin := func(since func(*resolution) uint32) found {
		return found{choose(first, end, since), map[uint32]*Row{}}
	}
	got, rest, ok, err := ask(h, func(d disk) found {
		out := begin(d.since)
		d.each(out.resolution, first, end, func(at uint32, entries []byte) error {
			r, err := pick(entries, flag)
			if r != nil {
				out.rows[at] = r
			}
			return err
		})
		return out
	})
	if !ok {
		got = begin(func(*resolution) uint32 { return 0 })
	}
	for _, e := range rest {
		at := got.span(e.at)
		if at < got.span(first) || at >= end {
			continue
		}
		for i, p := range e.parts {
			entries, err := unseal(keyOf(e.at, i), p)
			if err != nil {
				continue
			}
			r, _ := pick(entries, flag)
			if r == nil {
				continue
			}
			if had := got.rows[at]; had != nil {
				had.merge(*r)
			} else {
				got.rows[at] = r
			}
		}
	}
	for _, r := range running {
		minute, err := minuteOf(r.At)
		at := got.span(minute)
		if err != nil || r.Row.Flag != flag || at < got.span(first) || at >= end {
			continue
		}
		if had := got.rows[at]; had != nil {
			had.merge(r.Row)
		} else {
			got.rows[at] = &r.Row
		}
	}
	series := Series{Step: got.duration()}
	times := slices.Sorted(maps.Keys(got.rows))
	for _, at := range times[max(0, len(times)-MaxPoints):] {
		series.Points = append(series.Points, got.rows[at].point(at))
	}
	return series, err
}

// Running is a flag's minute that is not over.
type Running struct {
	At time.Time
	Row
}

// choose returns the finest resolution that goes back to first and gives no more than MaxPoints.
func choose(first, end uint32, since func(*resolution) uint32) *resolution {
	last := len(resolutions) - 1
	for i := range resolutions[:last] {
		r := &resolutions[i]
		if since(r) <= r.span(first) && (end-r.span(first)+r.step-1)/r.step <= MaxPoints {
			return r
		}
	}
	return &resolutions[last]
}

// pick returns the row of a flag, nil when there is none.
func pick(entries []byte, flag string) (*Row, error) {
	for len(entries) > 0 {
		name, fields, rest, err := next(entries)
		if err != nil {
			return nil, err
		}
		entries = rest
		switch strings.Compare(string(name), flag) {
		case 1: // Flags ascend.
			return nil, nil
		case 0:
			r := &Row{Flag: flag}
			if err := r.read(fields); err != nil {
				return nil, err
			}
			return r, nil
		}
	}
	return nil, nil
}
