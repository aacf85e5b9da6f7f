package history

import (
	"crypto/rand"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// feed is a file that minutes are written to without a history, many with a transaction.
type feed struct {
	t      testing.TB
	f      *file
	memory memory
	queue  []*entry
	most   int // Bytes that the file had.

	flushes int
}

func openFeed(t testing.TB, path string, o Options) *feed {
	t.Helper()
	f, _, err := openFile(path, o.withDefaults(), time.Now())
	must(t, err)
	out := &feed{t: t, f: f}
	rand.Read(out.memory.session[:])
	return out
}

func (f *feed) add(at uint32, rows []Row) {
	kept, _ := tidy(rows, f.f.options.MaxFlags)
	f.queue = append(f.queue, f.memory.add(at, pack(at, kept)))
}

// flush writes what was added, and looks at the size of the file.
func (f *feed) flush() {
	f.t.Helper()
	if len(f.queue) == 0 {
		return
	}
	must(f.t, f.f.write(f.queue, f.memory.session))
	f.queue = nil
	if f.flushes++; f.flushes%53 == 0 { // verify must never be stricter than bbolt.
		if broken, err := verify(f.f.f, f.f.size.Load()); err != nil || broken > 0 {
			f.t.Fatalf("verify after %d transactions: %d broken, %v", f.flushes, broken, err)
		}
	}
	if int64(f.most) < f.f.size.Load() {
		f.most = int(f.f.size.Load())
	}
}

// times returns when the spans of a resolution begin.
func (f *feed) times(bucket string) (times []uint32) {
	f.t.Helper()
	must(f.t, f.f.view(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, _ []byte) error {
			if n := len(times); n == 0 || times[n-1] != atOf(k) {
				times = append(times, atOf(k))
			}
			return nil
		})
	}))
	return times
}

// used is how much of the file is in use.
func (f *feed) used() (n int64) {
	f.t.Helper()
	must(f.t, f.f.view(func(tx *bbolt.Tx) error {
		n = f.f.used(tx)
		return nil
	}))
	return n
}

// TestHundredDays has a minute with few flags come for 100 days: each resolution is as long as it is to be, the file is
// not large, and queries choose what there is.
func TestHundredDays(t *testing.T) {
	path := temp(t)
	f := openFeed(t, path, quick())
	begin, _ := minuteOf(start)
	now := begin
	const days = 100
	rows := []Row{row("a", 1)}
	for range days * 24 {
		for range 60 {
			f.add(now, rows)
			now++
		}
		f.flush()
	}
	for _, r := range resolutions {
		times := f.times(r.bucket)
		want := now - r.keep
		if len(times) != int(r.keep/r.step) || times[0] != want {
			t.Errorf("%s: %d rows from %d, want %d from %d", r.bucket, len(times), times[0], r.keep/r.step, want)
		}
	}
	if f.most > 2<<20 {
		t.Errorf("the file has %d bytes", f.most)
	}
	must(t, f.f.close())
	checkFile(t, path)

	h := Open(path, quick())
	defer h.Close()
	end := timeOf(now)
	for _, c := range []struct {
		from time.Duration
		step time.Duration
		want int
	}{
		{time.Hour, time.Minute, 60},
		{48 * time.Hour, time.Minute, 2880},
		{49 * time.Hour, time.Minute, 2940},
		{49*time.Hour + time.Minute, 5 * time.Minute, 589},
		{14 * 24 * time.Hour, 5 * time.Minute, 4032},
		{15 * 24 * time.Hour, time.Hour, 360},
		{90 * 24 * time.Hour, time.Hour, 2160},
		{1000 * 24 * time.Hour, time.Hour, 2161},
	} {
		s := query(t, h, "a", end.Add(-c.from), end)
		if s.Step != c.step || len(s.Points) != c.want {
			t.Errorf("from %v: %d points of %v, want %d of %v", c.from, len(s.Points), s.Step, c.want, c.step)
		}
		if n := canary(s); n != uint64(time.Duration(c.want)*c.step/time.Minute) {
			t.Errorf("from %v: %d requests", c.from, n)
		}
	}
	// A range of one hour ten days ago is not in the minutes any more.
	if s := query(t, h, "a", end.AddDate(0, 0, -10), end.AddDate(0, 0, -10).Add(time.Hour)); s.Step != 5*time.Minute || canary(s) != 60 {
		t.Errorf("ten days ago: %v, %d requests", s.Step, canary(s))
	}
	if lines, err := h.Sparklines(end.AddDate(0, 0, -1), end, 24); err != nil || lines["a"][7] != 60*11 {
		t.Errorf("sparklines %v, %v", lines, err)
	}
}

// TestFileIsBounded has many flags come for 100 days, five minutes of each hour: the file keeps within its bound, the
// minutes give way first, the newest of each resolution stay, and no transaction ever finds it full.
func TestFileIsBounded(t *testing.T) {
	path := temp(t)
	o := quick()
	o.MaxBytes = leastMaxBytes
	f := openFeed(t, path, o)
	now, _ := minuteOf(start)
	rows := busyRows(30, 0)
	for range 100 * 24 {
		for n := range uint32(5) {
			f.add(now+12*n, rows)
		}
		now += 60
		f.flush()
	}
	if f.most > leastMaxBytes {
		t.Errorf("the file has %d bytes", f.most)
	}
	minutes, fives, hours := f.times("minutes"), f.times("fives"), f.times("hours")
	t.Logf("%d bytes, %d in use, %d minutes, %d fives, %d hours", f.most, f.used(), len(minutes), len(fives), len(hours))
	if f.used() > o.withDefaults().room()+200<<10 || f.used() < 2<<20 {
		t.Errorf("%d bytes in use", f.used())
	}
	if len(minutes) < 10 || len(fives) < 120 || len(hours) < 500 {
		t.Errorf("%d minutes, %d fives, %d hours", len(minutes), len(fives), len(hours))
	}
	if last := minutes[len(minutes)-1]; last != now-12 {
		t.Errorf("the last minute is %d, want %d", last, now-12)
	}
	must(t, f.f.close())
	checkFile(t, path)
}

// TestRowsThatAreLargeForTheFile has so many flags come that a transaction takes a good part of the smallest file.
func TestRowsThatAreLargeForTheFile(t *testing.T) {
	path := temp(t)
	o := quick()
	o.MaxBytes, o.MaxFlags = leastMaxBytes, mostMaxFlags
	f := openFeed(t, path, o)
	now, _ := minuteOf(start)
	rows := busyRows(mostMaxFlags, 0)
	for n := range uint32(15) {
		f.add(now+n, rows)
		f.flush() // Wants no error.
	}
	if f.most > leastMaxBytes {
		t.Errorf("the file has %d bytes", f.most)
	}
	must(t, f.f.close())
	checkFile(t, path)
}

// TestSmallerBoundThanBefore opens a file that is larger than it may be: it does not grow, and what is in it shrinks.
func TestSmallerBoundThanBefore(t *testing.T) {
	path := temp(t)
	f := openFeed(t, path, quick())
	now, _ := minuteOf(start)
	rows := busyRows(500, 0)
	for range 20 {
		for range 10 {
			f.add(now, rows)
			now++
		}
		f.flush()
	}
	if f.most < 6<<20 {
		t.Fatalf("the file has %d bytes", f.most)
	}
	must(t, f.f.close())
	before, err := os.Stat(path)
	must(t, err)
	o := quick()
	o.MaxBytes = leastMaxBytes
	f = openFeed(t, path, o)
	for range 10 {
		f.add(now, rows)
		f.flush()
		now++
	}
	if n := f.used(); n > leastMaxBytes {
		t.Errorf("%d bytes in use", n)
	}
	if f.most > int(before.Size())+64*pageSize {
		t.Errorf("the file grew from %d to %d", before.Size(), f.most)
	}
	must(t, f.f.close())
	checkFile(t, path)
}

// TestBytesOfAFlag measures what a busy flag takes of a minute, of which BenchmarkTwoDays makes two days.
func TestBytesOfAFlag(t *testing.T) {
	f := openFeed(t, temp(t), quick())
	defer f.f.close()
	now, _ := minuteOf(start)
	const minutes, flags = 120, 500
	for n := range uint32(minutes) {
		f.add(now+n, busyRows(flags, int(n)))
		if n%10 == 9 {
			f.flush()
		}
	}
	got := float64(f.used()) / minutes / flags
	t.Logf("%.1f bytes a flag and minute, with its share of five minutes and hours", got)
	if got > 110 {
		t.Errorf("%.1f bytes a flag and minute", got)
	}
}
