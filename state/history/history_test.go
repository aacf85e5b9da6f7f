package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAddAndQuery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "history.db")
	h := Open(path, patient())
	for n := range 7 {
		r := row("a", uint64(n+1))
		r.LogE = ptr(float64(n))
		r.Canary.Errors = 1
		if n == 5 {
			r.Status = Tripped
		}
		must(t, h.Add(minute(n).Add(59*time.Second), []Row{r, row("b", 1)}))
	}
	must(t, h.Health())
	check := func(h *History) {
		t.Helper()
		s := query(t, h, "a", start, minute(7))
		if s.Step != time.Minute || len(s.Points) != 7 || canary(s) != 28 {
			t.Fatalf("series %+v", s)
		}
		p := s.Points[5]
		want := Point{
			At: minute(5), LogE: ptr(5), TripAt: 6.908, Percentage: 12.5, Status: Tripped,
			Canary:  Figures{Requests: 6, Errors: 1, ErrorRate: 1.0 / 6, P50: 0.0375, P99: 0.025 + 0.025*0.99*1},
			Control: Figures{Requests: 60, P50: 0.0175, P99: 0.02485},
		}
		near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })
		if d := cmp.Diff(want, p, near); d != "" {
			t.Error(d)
		}
		if s := query(t, h, "a", minute(2).Add(time.Second), minute(4).Add(time.Second)); len(s.Points) != 3 || !s.Points[0].At.Equal(minute(2)) {
			t.Errorf("a part of it: %+v", s)
		}
		if s := query(t, h, "nobody", start, minute(7)); s.Points != nil {
			t.Errorf("points of an unknown flag: %+v", s)
		}
		fives := query(t, h, "a", minute(7).Add(-14*24*time.Hour), minute(7))
		if fives.Step != 5*time.Minute || len(fives.Points) != 2 || canary(fives) != 28 ||
			fives.Points[0].Status != "split" || fives.Points[1].Status != Tripped || *fives.Points[1].LogE != 6 {
			t.Errorf("two weeks: %+v", fives)
		}
		hours := query(t, h, "a", minute(7).Add(-90*24*time.Hour), minute(7))
		if hours.Step != time.Hour || len(hours.Points) != 1 || canary(hours) != 28 {
			t.Errorf("90 days: %+v", hours)
		}
	}
	check(h)
	if st := h.Stats(); st.Waiting != 0 || st.Bytes < 4*pageSize || st.SetAside != nil {
		t.Errorf("stats %+v", st)
	}
	must(t, h.Close())
	must(t, h.Close())
	checkFile(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v", st.Mode(), err)
	}

	h = Open(path, patient())
	check(h)
	must(t, h.Add(minute(6), []Row{row("a", 100)})) // A restart within a minute.
	wantSums(t, h, "a", 128)
	if s := query(t, h, "a", minute(6), minute(7)); len(s.Points) != 1 || canary(s) != 107 {
		t.Errorf("a minute added twice: %+v", s)
	}
	must(t, h.Close())
}

func TestSeriesJSON(t *testing.T) {
	s := Series{Step: 5 * time.Minute, Points: []Point{{At: start, LogE: ptr(1.5), Status: "on", Canary: Figures{Requests: 2, P50: 0.0125}}}}
	b, err := json.Marshal(s)
	must(t, err)
	want := `{"step":300,"points":[{"at":"2026-03-01T10:00:00Z","canary":{"requests":2,"errors":0,"error_rate":0,"p50":0.0125,"p99":0},` +
		`"control":{"requests":0,"errors":0,"error_rate":0,"p50":0,"p99":0},"log_e":1.5,"trip_at":0,"percentage":0,"status":"on"}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var back Series
	must(t, json.Unmarshal(b, &back))
	if !reflect.DeepEqual(back, s) {
		t.Errorf("read back %+v", back)
	}
	if b, _ := json.Marshal(Series{Step: time.Minute}); string(b) != `{"step":60,"points":[]}` {
		t.Errorf("no points: %s", b)
	}
}

func TestAddRefusesTimesThatCannotBe(t *testing.T) {
	h := Open("", Options{})
	defer h.Close()
	for _, at := range []time.Time{{}, time.Unix(-1, 0), latest} {
		if err := h.Add(at, nil); err == nil || !strings.Contains(err.Error(), "want one from 1970 to 9999") {
			t.Errorf("%v: %v", at, err)
		}
	}
	if _, err := h.Query("a", start, start); err == nil {
		t.Error("an empty range is fine")
	}
	for _, n := range []int{0, -1, 1001} {
		if _, err := h.Sparklines(start, minute(1), n); err == nil {
			t.Errorf("%d parts are fine", n)
		}
	}
	for _, to := range []time.Time{time.Unix(-5, 0), latest.AddDate(90000, 0, 0)} {
		if s, err := h.Query("a", to.AddDate(-1, 0, 0), to); err != nil || s.Points != nil {
			t.Errorf("until %v: %v, %v", to, s, err)
		}
		if s, err := h.Sparklines(to.AddDate(-1, 0, 0), to, 10); err != nil || len(s) > 0 {
			t.Errorf("until %v: %v, %v", to, s, err)
		}
	}
}

func TestInMemoryOnPurpose(t *testing.T) {
	h := Open("", Options{})
	for n := range 200 {
		must(t, h.Add(minute(n), []Row{row("a", 1)}))
	}
	s := query(t, h, "a", start, minute(200))
	if len(s.Points) != MemoryMinutes || !s.Points[0].At.Equal(minute(200-MemoryMinutes)) {
		t.Errorf("%d points from %v", len(s.Points), s.Points[0].At)
	}
	lines, err := h.Sparklines(minute(80), minute(200), 2)
	if err != nil || !reflect.DeepEqual(lines, map[string][]uint64{"a": {660, 660}}) {
		t.Errorf("sparklines %v, %v", lines, err)
	}
	if h.Health() != nil || !reflect.DeepEqual(h.Stats(), Stats{}) {
		t.Errorf("health %v, stats %+v", h.Health(), h.Stats())
	}
	must(t, h.Close())
	if err := h.Add(minute(200), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("add: %v", err)
	}
}

// TestDownsamplingIsAddingByHand adds minutes in any order, some of them twice, in transactions of any number of them,
// closing now and then, and compares each resolution with a model that knows nothing of files.
func TestDownsamplingIsAddingByHand(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		defer os.Remove(path)
		h := Open(path, quick())
		defer func() { h.Close() }()
		model := map[uint32]map[uint32]Row{} // By step and span, of flag a.
		for _, r := range resolutions {
			model[r.step] = map[uint32]Row{}
		}
		flags := rapid.SampledFrom([]string{"a", "a", "b", "c"})
		for range rapid.IntRange(1, 40).Draw(t, "minutes") {
			m := minute(rapid.IntRange(0, 200).Draw(t, "minute"))
			rows := rapid.SliceOfN(genRow(flags), 0, 4).Draw(t, "rows")
			if err := h.Add(m, rows); err != nil {
				t.Fatal(err)
			}
			tidied, _ := tidy(rows, 100)
			at, _ := minuteOf(m)
			for _, row := range tidied {
				if row.Flag != "a" {
					continue
				}
				for _, r := range resolutions {
					if sum, ok := model[r.step][r.span(at)]; ok {
						sum.merge(row)
						model[r.step][r.span(at)] = sum
					} else {
						model[r.step][r.span(at)] = row
					}
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "close") == 0 {
				if err := h.Close(); err != nil {
					t.Fatal(err)
				}
				h = Open(path, quick())
			}
		}
		for i, days := range []int{2, 14, 90} {
			r := resolutions[i]
			to := start.Add(4 * time.Hour)
			s, err := h.Query("a", to.AddDate(0, 0, -days), to)
			if err != nil {
				t.Fatal(err)
			}
			want := Series{Step: r.duration()}
			for _, at := range slices.Sorted(maps.Keys(model[r.step])) {
				row := model[r.step][at]
				want.Points = append(want.Points, row.point(at))
			}
			if d := cmp.Diff(want, s); d != "" {
				t.Fatalf("%s: %s", r.bucket, d)
			}
		}
	})
}

// TestSparklines compares with adding up by hand, in each resolution that is chosen.
func TestSparklines(t *testing.T) {
	h := Open(temp(t), quick())
	defer h.Close()
	for n := range 300 {
		must(t, h.Add(minute(n), []Row{row("a", uint64(n%7)), row(fmt.Sprint("b", n/100), 1)}))
	}
	for _, c := range []struct {
		to, parts, step int
	}{
		{300, 300, 1}, {300, 75, 1}, {300, 15, 5}, {300, 1, 60}, {240, 1, 60}, {299, 7, 5}, {10, 1000, 1}, {60, 3, 5},
	} {
		lines, err := h.Sparklines(start, minute(c.to), c.parts)
		must(t, err)
		want := map[string][]uint64{}
		for n := range 300 {
			begin := n - n%c.step
			if begin >= c.to {
				continue
			}
			for flag, requests := range map[string]uint64{"a": uint64(n % 7), fmt.Sprint("b", n/100): 1} {
				if requests == 0 {
					continue
				}
				if want[flag] == nil {
					want[flag] = make([]uint64, c.parts)
				}
				want[flag][begin*c.parts/c.to] += 11 * requests
			}
		}
		if d := cmp.Diff(want, lines); d != "" {
			t.Errorf("%+v: %s", c, d)
		}
	}
}

func TestBusiestFlagsAreKept(t *testing.T) {
	o := quick()
	o.MaxFlags = 3
	h := Open(temp(t), o)
	defer h.Close()
	for n := range 2 {
		var rows []Row
		for i := range 10 {
			rows = append(rows, row(fmt.Sprint("f", i), uint64(1+(i+5*n)%10)))
		}
		must(t, h.Add(minute(n), rows))
	}
	if d := h.Stats().Dropped; d != 14 {
		t.Errorf("%d dropped", d)
	}
	for flag, want := range map[string]int{"f9": 1, "f7": 1, "f4": 1, "f0": 0, "f2": 1} {
		if s := query(t, h, flag, start, minute(2)); len(s.Points) != want {
			t.Errorf("%s: %d points, want %d", flag, len(s.Points), want)
		}
	}
	lines, err := h.Sparklines(start, start.Add(4*time.Hour), 1) // Hours.
	if err != nil || len(lines) != 3 {
		t.Errorf("%d flags in the hour: %v, %v", len(lines), lines, err)
	}
}

// TestQueriesDuringWrites has minutes come while others ask: each query sees all that was added before it, once.
func TestQueriesDuringWrites(t *testing.T) {
	h := Open(temp(t), quick())
	defer h.Close()
	stop := make(chan struct{})
	var begun, added atomic.Uint64
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for over := false; !over; {
				select {
				case <-stop:
					over = true // But for one query that sees it all.
				default:
				}
				least := added.Load()
				s, err := h.Query("a", start, minute([]int{1000, 10_000, 100_000}[i%3]))
				if n, most := canary(s), begun.Load(); err != nil || n < 10*least || n > 10*most || n%10 != 0 {
					t.Errorf("%d requests of %d to %d minutes, %v", n, least, most, err)
				}
				lines, err := h.Sparklines(start, minute(1000), 1)
				if n := lines["a"]; err != nil || (least > 0 && n[0] < 110*least) {
					t.Errorf("sparkline of %v after %d minutes, %v", n, least, err)
				}
				h.Health()
				h.Stats()
			}
		})
	}
	for n := range 200 {
		begun.Add(1)
		must(t, h.Add(minute(n%150), append(busyRows(20, n), row("a", 10))))
		added.Add(1)
	}
	close(stop)
	wg.Wait()
	wantSums(t, h, "a", 2000)
}
