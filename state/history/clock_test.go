package history

import (
	"testing"
)

// TestClockJumps has minutes come for three days, then for an hour under a wrong time, then go on. What was there before
// is there still, but for the few rows that an hour may cost, and what came under the wrong time goes as well.
func TestClockJumps(t *testing.T) {
	const day = 24 * 60
	for _, c := range []struct {
		name  string
		jump  int64
		costs [3]int // Rows of each resolution at most.
	}{
		{"none", 0, [3]int{}},
		{"an hour ahead", 60, [3]int{60}},
		{"a month ahead", 30 * day, [3]int{120, 60}},
		{"ten years ahead", 3650 * day, [3]int{120, 60, 60}},
		{"as far as it goes", 1 << 31, [3]int{120, 60, 60}},
		{"minutes back", -7, [3]int{}},
		{"an hour back", -60, [3]int{}},
		{"a month back", -30 * day, [3]int{120, 60}},
		{"to 1970", -29_539_000, [3]int{120, 60, 60}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := temp(t)
			f := openFeed(t, path, quick())
			now, _ := minuteOf(start)
			begin := now
			rows := []Row{row("a", 1)}
			for range 3 * 24 {
				for range 60 {
					f.add(now, rows)
					now++
				}
				f.flush()
			}
			var before [3][]uint32
			for i, r := range resolutions {
				before[i] = f.times(r.bucket)
			}
			for n := range int64(60) {
				f.add(uint32(int64(now)+c.jump+n), rows)
				f.flush()
			}
			now += 60
			for i, r := range resolutions {
				have := map[uint32]bool{}
				for _, at := range f.times(r.bucket) {
					have[at] = true
				}
				lost := 0
				for _, at := range before[i] {
					if !have[at] && at+r.keep > now { // Not in its due time.
						lost++
					}
				}
				if lost > c.costs[i] {
					t.Errorf("%s: %d rows are lost, want %d at most", r.bucket, lost, c.costs[i])
				}
			}
			for range 180 {
				f.add(now, rows)
				f.flush()
				now++
			}
			for _, r := range resolutions {
				times := f.times(r.bucket)
				first, last := times[0], times[len(times)-1]
				if abs := max(c.jump, -c.jump); abs > int64(r.keep)+60 && (last >= now || first < begin) {
					t.Errorf("%s: rows from %d to %d, want none before %d or from %d on", r.bucket, first, last, begin, now)
				}
			}
			must(t, f.f.close())
			checkFile(t, path)
			h := Open(path, quick())
			defer h.Close()
			s := query(t, h, "a", timeOf(now-180), timeOf(now))
			if len(s.Points) != 180 {
				t.Errorf("%d points of the last three hours", len(s.Points))
			}
		})
	}
}

// TestMinutesInAnyOrder has the clock go back over a border of an hour again and again.
func TestMinutesInAnyOrder(t *testing.T) {
	h := Open(temp(t), quick())
	defer h.Close()
	for n := range 120 {
		must(t, h.Add(minute(n*37%100), []Row{row("a", 1)}))
	}
	wantSums(t, h, "a", 120)
	if s := query(t, h, "a", minute(0), minute(100)); len(s.Points) != 100 || s.Points[0].Canary.Requests != 2 {
		t.Errorf("%d points, the first %+v", len(s.Points), s.Points[0])
	}
}
