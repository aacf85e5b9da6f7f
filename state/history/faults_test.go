package history

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestEveryAttemptMayFail lets each call to the disk fail in turn: everything is in the file once, in the end.
func TestEveryAttemptMayFail(t *testing.T) {
	for n := range 12 {
		path := temp(t)
		calls := 0
		o := quick()
		o.faults.disk = func(op string) error {
			if op == "read" {
				return nil
			}
			if calls++; calls > n && calls <= n+3 {
				return syscall.ENOSPC
			}
			return nil
		}
		h := Open(path, o)
		failed := 0
		for m := range 20 {
			err := h.Add(minute(m), []Row{row("a", 1)})
			if err != nil {
				failed++
				if !errors.Is(err, syscall.ENOSPC) || !errors.Is(h.Health(), syscall.ENOSPC) || h.Stats().Waiting == 0 {
					t.Fatalf("add: %v, health: %v, stats %+v", err, h.Health(), h.Stats())
				}
			}
			if s, err := h.Query("a", start, minute(30)); canary(s) != uint64(m+1) || (err != nil && h.file.Load() != nil) {
				t.Errorf("fault %d, minute %d: %d requests, %v", n, m, canary(s), err)
			}
		}
		if failed < 2 {
			t.Errorf("%d failed", failed)
		}
		if h.Health() != nil || h.Stats().Waiting != 0 {
			t.Errorf("health %v, %+v", h.Health(), h.Stats())
		}
		wantSums(t, h, "a", 20)
		must(t, h.Close())
		checkFile(t, path)
	}
}

// TestOutageOfThreeHours has the disk fail for longer than memory reaches.
func TestOutageOfThreeHours(t *testing.T) {
	path := temp(t)
	var down atomic.Bool
	o := quick()
	o.faults.disk = func(op string) error {
		if down.Load() {
			return syscall.EIO
		}
		return nil
	}
	h := Open(path, o)
	must(t, h.Add(minute(0), []Row{row("a", 1)}))
	down.Store(true)
	for n := range 180 {
		if err := h.Add(minute(1+n), []Row{row("a", 1)}); !errors.Is(err, syscall.EIO) {
			t.Fatalf("add: %v", err)
		}
	}
	if st := h.Stats(); st.Waiting != MemoryMinutes || st.Lost != 60 {
		t.Errorf("stats %+v", st)
	}
	s, err := h.Query("a", start, minute(1000))
	if !errors.Is(err, syscall.EIO) || canary(s) != MemoryMinutes {
		t.Errorf("query: %v, %d requests", err, canary(s))
	}
	lines, err := h.Sparklines(start, minute(200), 1)
	if !errors.Is(err, syscall.EIO) || lines["a"][0] != 11*MemoryMinutes {
		t.Errorf("sparklines: %v, %v", err, lines)
	}
	down.Store(false)
	must(t, h.Add(minute(181), []Row{row("a", 1)}))
	if st := h.Stats(); st.Waiting != 0 || st.Lost != 61 {
		t.Errorf("stats %+v", st)
	}
	wantSums(t, h, "a", 1+MemoryMinutes)
	down.Store(true)
	if err := h.Add(minute(182), []Row{row("a", 1)}); err == nil {
		t.Error("no error")
	}
	if err := h.Close(); !errors.Is(err, syscall.EIO) || !strings.HasPrefix(err.Error(), "closing: 1 minutes are not on disk: history ") {
		t.Errorf("close: %v", err)
	}
	if err := h.Add(minute(183), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("add: %v", err)
	}
	if s, err := h.Query("a", start, minute(1000)); !errors.Is(err, ErrClosed) || canary(s) != MemoryMinutes {
		t.Errorf("query of a closed history: %v, %d requests", err, canary(s))
	}
}

// TestNobodyWaitsForTheDisk has the disk hang in each of its calls: every call returns after a second, with what is in
// memory, and Close after three.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	for _, hanging := range []string{"open", "write", "read"} {
		t.Run(hanging, func(t *testing.T) {
			path := temp(t)
			synctest.Test(t, func(t *testing.T) {
				block := make(chan struct{})
				var hangs atomic.Bool
				hangs.Store(hanging == "open")
				var o Options
				o.faults = &faults{noSync: true, disk: func(op string) error {
					if op == hanging && hangs.Load() {
						<-block
					}
					return nil
				}}
				const patience = time.Second
				took := func(what string, most time.Duration, f func() error, want error) {
					t.Helper()
					begin := time.Now()
					if err := f(); !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", what, err, want)
					}
					if d := time.Since(begin); d > most {
						t.Errorf("%s took %v", what, d)
					}
				}
				begin := time.Now()
				h := Open(path, o)
				if d := time.Since(begin); d > patience {
					t.Errorf("open took %v", d)
				}
				hangs.Store(true)
				for n := range 3 {
					want := ErrSlow
					if hanging == "read" {
						want = nil
					}
					took("add", patience, func() error { return h.Add(minute(n), []Row{row("a", 1)}) }, want)
				}
				want := ErrSlow
				if hanging == "write" {
					want = nil
				}
				for range 2 * maxReaders { // More than may wait at a time.
					took("query", patience, func() error {
						s, err := h.Query("a", start, minute(10))
						if canary(s) != 3 {
							t.Errorf("%d requests", canary(s))
						}
						return err
					}, want)
				}
				if err := h.Health(); (hanging != "read") != errors.Is(err, ErrSlow) {
					t.Errorf("health: %v", err)
				}
				if hanging != "read" {
					took("close", 3*patience, h.Close, ErrSlow)
				}
				close(block)
				synctest.Wait()
				must(t, h.Close())
			})
			h := Open(path, quick())
			defer h.Close()
			wantSums(t, h, "a", 3)
		})
	}
}

// TestFileCutOffWhileOpen truncates the file under the history's feet, which makes its mapped pages fault: nothing ends
// but what was in the file, and what is in memory comes back.
func TestFileCutOffWhileOpen(t *testing.T) {
	for _, size := range []int64{0, 1, pageSize, 3 * pageSize, 8 * pageSize} {
		path := temp(t)
		h := Open(path, quick())
		for n := range 30 {
			must(t, h.Add(minute(n), busyRows(20, n)))
		}
		f := h.file.Load()
		must(t, os.Truncate(path, size))
		// Past the look at the size, which comes first in earnest.
		f.size.Store(0)
		s, err := h.Query("checkout_flow_0003", start, minute(100))
		if err == nil && size < 3*pageSize {
			t.Errorf("size %d: %d points of what is not there", size, len(s.Points))
		}
		if err != nil && len(s.Points) != 30 {
			t.Errorf("size %d: %d points in memory, %v", size, len(s.Points), err)
		}
		must(t, h.Add(minute(30), busyRows(20, 30)))
		must(t, h.Health())
		if s := query(t, h, "checkout_flow_0003", start, minute(100)); len(s.Points) != 31 {
			t.Errorf("size %d: %d points", size, len(s.Points))
		}
		must(t, h.Close())
		checkFile(t, path)
	}
}

// TestFaultInATransactionIsAnError makes bbolt write to a file that is not there any more, with its locks taken.
func TestFaultInATransactionIsAnError(t *testing.T) {
	path := temp(t)
	f := openFeed(t, path, quick())
	now, _ := minuteOf(start)
	for n := range uint32(100) {
		f.add(now+n, busyRows(20, 0))
	}
	f.flush()
	must(t, os.Truncate(path, 2*pageSize))
	f.add(now+100, busyRows(20, 0))
	err := f.f.write(f.queue, f.memory.session)
	var d damage
	if !errors.As(err, &d) || f.f.broken.Load() == nil || !f.f.stale(path) {
		t.Errorf("write: %v", err)
	}
	if err := f.f.close(); err != nil {
		t.Errorf("close: %v", err)
	}
	h := Open(path, quick())
	must(t, h.Health())
	must(t, h.Close())
}

// TestFileTakenAway removes and replaces the file while it is open.
func TestFileTakenAway(t *testing.T) {
	path := temp(t)
	h := Open(path, quick())
	defer h.Close()
	must(t, h.Add(minute(0), []Row{row("a", 1)}))
	must(t, os.Remove(path))
	must(t, h.Add(minute(1), []Row{row("a", 1)}))
	wantSums(t, h, "a", 2)
	other := path + ".other"
	g := Open(other, quick())
	must(t, g.Add(minute(0), []Row{row("a", 100)}))
	must(t, g.Close())
	must(t, os.Rename(other, path))
	must(t, h.Add(minute(2), []Row{row("a", 1)}))
	wantSums(t, h, "a", 103)
	if st := h.Stats(); st.SetAside != nil {
		t.Errorf("stats %+v", st)
	}
}

// TestUnclearEnd repeats minutes whose transaction seemed to fail and did not.
func TestUnclearEnd(t *testing.T) {
	path := temp(t)
	h := Open(path, quick())
	defer h.Close()
	for n := range 5 {
		must(t, h.Add(minute(n), []Row{row("a", 1)}))
	}
	h.memory.settle(2)
	must(t, h.Add(minute(5), []Row{row("a", 1)}))
	wantSums(t, h, "a", 6)
	if s := query(t, h, "a", start, minute(10)); canary(s) != 6 {
		t.Errorf("%d requests", canary(s))
	}
}

// TestSecondHistoryWaits opens a file twice.
func TestSecondHistoryWaits(t *testing.T) {
	path := temp(t)
	a, b := Open(path, quick()), Open(path, quick())
	defer b.Close()
	must(t, a.Add(minute(0), []Row{row("a", 1)}))
	if err := b.Add(minute(1), []Row{row("a", 1)}); !errors.Is(err, ErrLocked) || !errors.Is(b.Health(), ErrLocked) {
		t.Errorf("add: %v, health: %v", err, b.Health())
	}
	if s, err := b.Query("a", start, minute(10)); !errors.Is(err, ErrLocked) || canary(s) != 1 {
		t.Errorf("query: %v, %d requests", err, canary(s))
	}
	must(t, a.Close())
	must(t, b.Add(minute(2), []Row{row("a", 1)}))
	wantSums(t, b, "a", 3)
}

func TestCloseFromManySides(t *testing.T) {
	h := Open(temp(t), quick())
	must(t, h.Add(minute(0), []Row{row("a", 1)}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if s, err := h.Query("a", start, minute(10)); canary(s) != 1 {
				t.Errorf("query: %v, %d requests", err, canary(s))
			}
		})
	}
	wg.Wait()
}

// faultyReader fails from an offset on.
type faultyReader struct {
	io.ReaderAt
	from int64
}

func (f faultyReader) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.from {
		return 0, syscall.EIO
	}
	return f.ReaderAt.ReadAt(b, off)
}

// TestADiskThatCannotBeReadIsNoDamage: a file is not set aside for what may pass.
func TestADiskThatCannotBeReadIsNoDamage(t *testing.T) {
	whole := written(t)
	for from := int64(0); from < int64(len(whole)); from += pageSize {
		_, err := verify(faultyReader{strings.NewReader(string(whole)), from}, int64(len(whole)))
		if !errors.Is(err, syscall.EIO) && err != nil {
			t.Errorf("from %d: %v", from, err)
		}
		if err == nil && from < 3*pageSize {
			t.Errorf("from %d: no error", from)
		}
	}
}
