package history

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkTwoDays writes two days of busy flags, of which a row keeps 500, and tells how large the file is. With 1,000
// flags it meets its bound.
func BenchmarkTwoDays(b *testing.B) {
	for _, flags := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(flags, "flags"), func(b *testing.B) {
			for b.Loop() {
				f := openFeed(b, temp(b), quick())
				now, _ := minuteOf(start)
				for n := range uint32(2 * 24 * 60) {
					f.add(now+n, busyRows(flags, int(n)))
					if n%batch == batch-1 {
						f.flush()
					}
				}
				f.flush()
				b.ReportMetric(float64(f.most)/(1<<20), "file-MiB")
				b.ReportMetric(float64(f.used())/(1<<20), "used-MiB")
				b.ReportMetric(float64(len(f.times("minutes"))), "minutes")
				f.f.close()
			}
		})
	}
}

// day returns a history with a day of 100 busy flags.
func day(b *testing.B) *History {
	path := temp(b)
	f := openFeed(b, path, quick())
	now, _ := minuteOf(start)
	for n := range uint32(24 * 60) {
		f.add(now+n, busyRows(100, int(n)))
		if n%batch == batch-1 {
			f.flush()
		}
	}
	must(b, f.f.close())
	h := Open(path, patient())
	b.Cleanup(func() { h.Close() })
	must(b, h.Health())
	return h
}

// BenchmarkAdd is a minute of 100 busy flags, to the end of its sync.
func BenchmarkAdd(b *testing.B) {
	h := day(b)
	rows := busyRows(100, 1)
	n := 24 * 60
	for b.Loop() {
		must(b, h.Add(minute(n), rows))
		n++
	}
}

func BenchmarkQueryDayOfMinutes(b *testing.B) {
	h := day(b)
	for b.Loop() {
		if s := query(b, h, "checkout_flow_0050", start, minute(24*60)); len(s.Points) != 24*60 || s.Step != time.Minute {
			b.Fatalf("%d points", len(s.Points))
		}
	}
}

func BenchmarkSparklinesOfADay(b *testing.B) {
	h := day(b)
	for b.Loop() {
		if _, err := h.Sparklines(start, minute(24*60), 48); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is the opening of a day of 100 busy flags, with its verification.
func BenchmarkOpen(b *testing.B) {
	h := day(b)
	must(b, h.Close())
	for b.Loop() {
		h := Open(h.path, patient())
		must(b, h.Health())
		must(b, h.Close())
	}
}
