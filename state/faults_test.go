package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// faults make calls to the disk fail: the one that brings the countdown to 0, and while stuck is set all later ones.
type faults struct {
	mu    sync.Mutex
	after int // Calls that go well; negative: all.
	stuck bool
	short int    // Bytes that a failing write gets through, of those it was given.
	only  string // The file whose calls count and fail; "": of all.
	block chan struct{}
	calls int
}

func (f *faults) set(after int, stuck bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after, f.stuck = after, stuck
}

func (f *faults) fail(name string) error {
	if f.only != "" && filepath.Base(name) != f.only {
		return nil
	}
	f.mu.Lock()
	block := f.block
	defer f.mu.Unlock()
	f.calls++
	if block != nil {
		f.mu.Unlock()
		<-block
		f.mu.Lock()
	}
	switch {
	case f.after < 0:
		return nil
	case f.after > 0:
		f.after--
		return nil
	case !f.stuck:
		f.after = -1
	}
	return syscall.ENOSPC
}

func (f *faults) files() files {
	return files{
		open: func(name string, flag int, perm fs.FileMode) (file, error) {
			if err := f.fail(name); err != nil {
				return nil, err
			}
			opened, err := systemFiles.open(name, flag, perm)
			if err != nil {
				return nil, err
			}
			return &faultyFile{file: opened, name: name, faults: f}, nil
		},
		rename: func(from, to string) error {
			if err := f.fail(to); err != nil {
				return err
			}
			return os.Rename(from, to)
		},
		sync: func(dir string) error {
			if err := f.fail(dir); err != nil {
				return err
			}
			return fsys.SyncDir(dir)
		},
	}
}

type faultyFile struct {
	file
	name string
	*faults
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fail(f.name); err != nil {
		n, _ := f.file.WriteAt(p[:min(f.short, len(p))], off)
		return n, err
	}
	return f.file.WriteAt(p, off)
}

func (f *faultyFile) Sync() error {
	if err := f.fail(f.name); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.fail(f.name); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

// TestAppendThatFailsHalfway lets an append get any number of bytes through, with and without the truncation behind it
// failing too: the records before and after it are not touched, and it is written again. The audit log's disk is well:
// its writes may come before.
func TestAppendThatFailsHalfway(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		for short := 0; short < 400; short += 7 {
			dir := t.TempDir()
			f := &faults{after: -1, short: short, only: JournalName}
			o := quick()
			o.files = f.files()
			s := Open(dir, o)
			before := trip(t, s, "a")
			eventually(t, "audit written", func() bool { return s.Health().Waiting == 0 })
			f.set(0, stuck)
			hit, p := s.Trip(start, TripInput{Flag: "a", Test: "errors", Evidence: []byte(`{"long":"` + strings.Repeat("x", 200) + `"}`)})
			if err := p.Wait(t.Context()); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("short %d: got %v, want ENOSPC", short, err)
			}
			wantOpen(t, s, "a", before.ID, hit.ID)
			f.set(-1, false)
			eventually(t, "healthy again", func() bool { h := s.Health(); return !h.Degraded && h.Waiting == 0 })
			after := trip(t, s, "a")
			mustClose(t, s)
			again := Open(dir, quick())
			wantOpen(t, again, "a", before.ID, hit.ID, after.ID)
			if h := again.Health(); h.SetAside != nil || h.Degraded {
				t.Errorf("short %d: health %+v", short, h)
			}
			mustClose(t, again)
		}
	}
}

// TestAnyCallFails lets each single call to the disk fail in turn, once or from then on for a while, through opening,
// writing, salvaging and compacting: in the end everything is on disk, and what was acknowledged always was.
func TestAnyCallFails(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		for n := 0; ; n++ {
			dir := t.TempDir()
			first := Open(dir, quick())
			kept := trip(t, first, "a")
			mustClose(t, first)
			damaged := append(read(t, first.path(JournalName)), "damage\n"...)
			write(t, first.path(JournalName), damaged)

			f := &faults{after: n, stuck: stuck, short: 20}
			o := quick()
			o.files = f.files()
			o.limits = defaultLimits
			o.limits.outdated = 5
			s := Open(dir, o)
			var acknowledged []string
			all := []string{kept.ID}
			for i := range 8 {
				tr, p := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
				all = append(all, tr.ID)
				if p.Wait(t.Context()) == nil {
					acknowledged = append(acknowledged, tr.ID)
				}
				s.SetProgress(start, "a", fmt.Append(nil, i)).Wait(t.Context())
			}
			scanned, err := readScan(strings.NewReader(string(read(t, first.path(JournalName)))))
			if err != nil {
				t.Fatal(err)
			}
			onDisk := map[string]bool{}
			for _, l := range scanned.lines {
				if l.record.Trip != nil {
					onDisk[l.record.Trip.ID] = true
				}
			}
			for _, id := range acknowledged {
				if !onDisk[id] {
					t.Errorf("call %d: acknowledged %s is not on disk", n, id)
				}
			}
			f.mu.Lock()
			over := f.calls <= n
			f.mu.Unlock()
			f.set(-1, false)
			eventually(t, "all on disk", func() bool { h := s.Health(); return !h.Degraded && h.Waiting == 0 })
			if h := s.Health(); len(h.SetAside) != 1 || h.Salvaged != 1 || h.Lost != 1 {
				t.Errorf("call %d: health %+v", n, h)
			} else if string(read(t, h.SetAside[0])) != string(damaged) {
				t.Errorf("call %d: what was set aside is not what was there", n)
			}
			mustClose(t, s)
			again := Open(dir, quick())
			wantOpen(t, again, "a", all...)
			if got := string(again.Progress("a").Data); got != "7" {
				t.Errorf("call %d: progress %s", n, got)
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(names) != 1 {
				t.Errorf("call %d: set aside %v", n, names)
			}
			mustClose(t, again)
			if over {
				if n < 30 {
					t.Errorf("only %d calls", n)
				}
				break
			}
		}
	}
}

func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faults{after: 0, stuck: true}
		begin := time.Now()
		s := Open(t.TempDir(), Options{files: f.files()})
		defer s.Close()
		var told []Health
		stop := s.OnHealth(func(h Health) { told = append(told, h) })
		tr, p := s.Trip(begin, TripInput{Flag: "a", Test: "errors"})
		if err := p.Err(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("pending: %v, want ENOSPC at once", err)
		}
		wantOpen(t, s, "a", tr.ID)
		var attempts []int
		calls := 0
		for i := range 120 {
			synctest.Wait()
			f.mu.Lock()
			if f.calls > calls && i > 0 {
				attempts = append(attempts, i)
			}
			calls = f.calls
			f.mu.Unlock()
			time.Sleep(time.Second)
		}
		if got := fmt.Sprint(attempts); got != "[1 3 7 15 31 61 91]" {
			t.Errorf("attempts after %s s, want 1 3 7 15 31, then every 30", got)
		}
		if h := s.Health(); !h.Degraded || !h.Since.Equal(begin) || h.Waiting != 2 || !errors.Is(h.Err, syscall.ENOSPC) ||
			!strings.HasPrefix(h.Err.Error(), `state directory "`) {
			t.Errorf("health %+v", h)
		}
		if len(told) != 0 {
			t.Errorf("told %+v while nothing changed", told)
		}
		f.set(-1, false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if h := s.Health(); h.Degraded || h.Waiting != 0 || h.Err != nil || !h.Since.IsZero() {
			t.Errorf("health %+v", h)
		}
		f.set(0, true)
		s.Trip(begin, TripInput{Flag: "a", Test: "errors"})
		synctest.Wait()
		stop()
		f.set(-1, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(told) != 2 || told[0].Degraded || !told[1].Degraded {
			t.Errorf("told %+v; want healthy, degraded, and nothing after stop", told)
		}
		if s.Health().Degraded {
			t.Error("degraded")
		}
	})
}

// TestNobodyWaitsForTheDisk blocks the disk: every call returns, with what it should see, and Close gives up in time.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faults{after: -1}
		s := Open(t.TempDir(), Options{files: f.files(), CloseTimeout: 3 * time.Second})
		block := make(chan struct{})
		f.mu.Lock()
		f.block = block
		f.mu.Unlock()
		begin := time.Now()
		_, p := s.Trip(begin, TripInput{Flag: "a", Test: "errors"})
		synctest.Wait() // The writer hangs in its write.
		s.Override(begin, "a", Disabled, "ops", "")
		s.SetProgress(begin, "a", []byte("1"))
		s.Note(begin, AuditEntry{Action: "step"})
		s.Merge(begin, Snapshot{Trips: []Trip{{ID: "x", Flag: "b"}}})
		if len(s.Flags()) != 2 || len(s.Audit(AuditFilter{})) != 3 || s.Flag("a").Override.Kind != Disabled {
			t.Errorf("flags %+v", s.Flags())
		}
		if r, _ := s.Reset(begin, "a", "ops", ""); len(r.Trips) != 1 {
			t.Errorf("reset %+v", r)
		}
		if h := s.Health(); h.Degraded || h.Waiting != 9 {
			t.Errorf("health %+v", h)
		}
		select {
		case <-p.Done():
			t.Errorf("done: %v", p.Err())
		default:
		}
		err := s.Close()
		if err == nil || !strings.Contains(err.Error(), "9 records wait") || time.Since(begin) != 3*time.Second {
			t.Errorf("close: %v after %v", err, time.Since(begin))
		}
		close(block)
		synctest.Wait()
		if err := s.Close(); err != nil || p.Err() != nil {
			t.Errorf("when the disk answered: close %v, trip %v", err, p.Err())
		}
		if n := s.Health().Waiting; n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

// TestManyRecordsShareASync has 500 trips come while the first one is being written.
func TestManyRecordsShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faults{after: -1}
		s := Open(t.TempDir(), Options{files: f.files()})
		defer s.Close()
		block := make(chan struct{})
		f.mu.Lock()
		f.block = block
		before := f.calls
		f.mu.Unlock()
		for range 500 {
			s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors"})
			synctest.Wait()
		}
		f.mu.Lock()
		f.block = nil
		f.mu.Unlock()
		close(block)
		synctest.Wait()
		// Two batches of trips and one or two of audit entries, a write and a sync each.
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := f.calls - before; n > 8 || s.Health().Waiting != 0 {
			t.Errorf("%d calls to the disk for 500 trips, %d wait", n, s.Health().Waiting)
		}
	})
}

func TestCloseTellsWhatIsNotOnDisk(t *testing.T) {
	f := &faults{after: 0, stuck: true}
	o := quick()
	o.files = f.files()
	s := Open(t.TempDir(), o)
	s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	err := s.Close()
	if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "closing: 2 records are not on disk: state directory") {
		t.Errorf("got %v", err)
	}
}

func TestCompactionThatFailsIsToldAndHarmless(t *testing.T) {
	o := quick()
	o.limits = defaultLimits
	o.limits.outdated = 10
	o.files = systemFiles
	o.files.open = func(name string, flag int, perm fs.FileMode) (file, error) {
		if strings.HasSuffix(name, ".tmp") {
			return nil, syscall.ENOSPC
		}
		return systemFiles.open(name, flag, perm)
	}
	s := Open(t.TempDir(), o)
	defer s.Close()
	for i := range 50 {
		mustSync(t, s.SetProgress(start, "a", fmt.Append(nil, i)))
	}
	if h := s.Health(); h.Degraded || !errors.Is(h.Compaction, syscall.ENOSPC) {
		t.Errorf("health %+v", h)
	}
}
