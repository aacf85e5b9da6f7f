package history

import (
	"fmt"
	"time"
)

// Sparklines returns the requests of each flag that had any, in n equal parts from a time until before another, in one
// pass. A row counts for the part that it begins in; rows are as long as fit a part four times, where they go back that
// far. n is 1 to 1000. It waits and fails as [History.Query] does.
func (h *History) Sparklines(from, to time.Time, n int) (map[string][]uint64, error) {
	if !from.Before(to) || n < 1 || n > 1000 {
		return nil, fmt.Errorf("querying history %q: %d parts from %s to %s: want 1 to 1000, and a time before another", h.path,
			n, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	first, end := clampMinute(from, false), clampMinute(to, true)
	if first == end { // Beyond all that there can be.
		return map[string][]uint64{}, nil
	}
	count := func(lines map[string][]uint64, at uint32, entries []byte) error {
		part := int(uint64(max(at, first)-first) * uint64(n) / uint64(end-first))
		for len(entries) > 0 {
			flag, fields, rest, err := next(entries)
			if err != nil {
				return err
			}
			entries = rest
			var r Row
			if err := r.read(fields); err != nil {
				return err
			}
			if r.requests() == 0 {
				continue
			}
			if lines[string(flag)] == nil {
				lines[string(flag)] = make([]uint64, n)
			}
			lines[string(flag)][part] += r.requests()
		}
		return nil
	}
	lines, rest, ok, err := ask(h, func(d disk) map[string][]uint64 {
		lines := map[string][]uint64{}
		d.each(coarsest(first, end, n, d.since), first, end, func(at uint32, entries []byte) error {
			return count(lines, at, entries)
		})
		return lines
	})
	if !ok {
		lines = map[string][]uint64{}
	}
	for _, e := range rest {
		if e.at < first || e.at >= end {
			continue
		}
		for i, p := range e.parts {
			if entries, err := unseal(keyOf(e.at, i), p); err == nil {
				count(lines, e.at, entries)
			}
		}
	}
	return lines, err
}

// coarsest returns the coarsest resolution of which four spans fit one of n parts, or the finest one that goes back to
// first.
func coarsest(first, end uint32, n int, since func(*resolution) uint32) *resolution {
	for i := len(resolutions) - 1; i > 0; i-- {
		if r := &resolutions[i]; uint64(r.step)*4*uint64(n) <= uint64(end-first) {
			return r
		}
	}
	return choose(first, end, since)
}
