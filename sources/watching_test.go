package sources

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// event is one call of changed.
type event struct {
	doc Document
	err error
	at  time.Time
}

// text is the body, or the error.
func (e event) text() string {
	if e.err != nil {
		return "error: " + e.err.Error()
	}
	return string(e.doc.Body)
}

// watcher collects the events of a file that is watched while the test runs.
type watcher struct {
	t    *testing.T
	file *File
	path string

	mu     sync.Mutex
	events []event
	seen   int // Of events, by next.
}

// watch loads a file with the given text and watches it each 100 ms.
func watch(t *testing.T, path, text string) *watcher {
	t.Helper()
	if text != "" {
		put(t, path, text)
	}
	w := &watcher{t: t, path: path, file: &File{Path: path, Poll: MinPoll}}
	if text != "" {
		if doc, err := w.file.Load(t.Context()); err != nil || string(doc.Body) != text {
			t.Fatalf("load: %q, %v", doc.Body, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.file.Watch(ctx, func(d Document, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, event{d, err, time.Now()})
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// next waits for the next event and wants it to have the given text.
func (w *watcher) next(want string) event {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		if len(w.events) > w.seen {
			e := w.events[w.seen]
			w.seen++
			w.mu.Unlock()
			if e.text() != want {
				w.t.Fatalf("told %.100q, want %.100q", e.text(), want)
			}
			return e
		}
		w.mu.Unlock()
	}
	w.t.Fatalf("told nothing, want %.100q", want)
	return event{}
}

// until wants an event sooner or later, whatever comes before it.
func (w *watcher) until(want string) {
	w.t.Helper()
	last := ""
	for deadline := time.Now().Add(10 * time.Second); last != want; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		if w.seen = len(w.events); w.seen > 0 {
			last = w.events[w.seen-1].text()
		}
		w.mu.Unlock()
		if time.Now().After(deadline) {
			w.t.Fatalf("told %.100q, want %.100q", last, want)
		}
	}
}

// rounds makes changes until n of them were made in time, and ends each with the event
// that change names. One that a busy machine has stopped in the middle may be told in
// parts.
func (w *watcher) rounds(n int, change func(round int) (text string, punctual bool)) {
	w.t.Helper()
	for round, tried := 0, 0; tried < n; round++ {
		if round == 20*n {
			w.t.Fatalf("the machine is too busy: %d of %d changes were made in time, want %d", tried, round, n)
		}
		text, punctual := change(round)
		if !punctual {
			w.until(text)
			continue
		}
		tried++
		w.next(text)
	}
}

// nothing wants no event for three polls.
func (w *watcher) nothing() {
	w.t.Helper()
	time.Sleep(3 * MinPoll)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) > w.seen {
		w.t.Fatalf("told %.100q, want nothing", w.events[w.seen].text())
	}
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchRewriteInPlace(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	w.nothing() // Load has told it.
	put(t, w.path, "two")
	w.next("two") // Same size.
	put(t, w.path, "three")
	w.next("three")
	put(t, w.path, "three")
	w.nothing() // Written, but the same.
}

func TestWatchWithoutLoadTellsThePresentVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, "one")
	w := watch(t, path, "")
	e := w.next("one")
	if e.doc.Name != path || len(e.doc.Revision) != 64 || time.Since(e.doc.ReadAt) > time.Minute {
		t.Errorf("document %+v", e.doc)
	}
	w.nothing()
}

func TestWatchMissesNothingBetweenLoadAndWatch(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, "one")
	f := &File{Path: path}
	if _, err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, path, "two")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Watch(ctx, func(d Document, err error) {
		if err != nil || string(d.Body) != "two" {
			t.Errorf("told %q, %v", d.Body, err)
		}
		cancel()
	})
}

// TestWatchSameStamp rewrites with the same size and sets the modification time back to what it was. What is left, the
// change time, does not help where it has the same coarse clock.
func TestWatchSameStamp(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	st, err := os.Stat(w.path)
	must(t, err)
	put(t, w.path, "two")
	must(t, os.Chtimes(w.path, st.ModTime(), st.ModTime()))
	w.next("two")
}

// TestRacyStamp has the very same stamp before and after a write, as within one tick of the file system's clock: the
// file is read again while it is young, and not when it is old.
func TestRacyStamp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, "one")
	f := &File{Path: path}
	if _, err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.asBefore() {
		t.Error("a file written to just now is taken to be as before for its stamp")
	}
	f.readAt = f.readAt.Add(racyAge)
	if !f.asBefore() {
		t.Error("an old file is read again")
	}
	put(t, path, "two")
	if f.asBefore() {
		t.Error("a write is not noticed")
	}
}

func TestWatchRenameOver(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	for _, text := range []string{"two", "six", "ten"} {
		put(t, w.path+".new", text)
		must(t, os.Rename(w.path+".new", w.path))
		w.next(text)
	}
	w.nothing()
}

func TestWatchSymlinkSwapped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a"), "one")
	put(t, filepath.Join(dir, "b"), "two")
	path := filepath.Join(dir, "f.json")
	must(t, os.Symlink("a", path))
	w := watch(t, path, "")
	w.next("one")
	must(t, os.Symlink("b", path+".new"))
	must(t, os.Rename(path+".new", path))
	w.next("two")
	put(t, filepath.Join(dir, "b"), "six") // And its target.
	w.next("six")
	must(t, os.Remove(filepath.Join(dir, "b")))
	w.next(fmt.Sprintf("error: file %q: no such file or directory", path))
}

func TestWatchConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount := func(version, text string) {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		put(t, filepath.Join(dir, version, "f.json"), text)
		must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	mount("..2026_01", "one")
	path := filepath.Join(dir, "f.json")
	must(t, os.Symlink("..data/f.json", path))
	w := watch(t, path, "")
	w.next("one")
	mount("..2026_02", "two")
	must(t, os.RemoveAll(filepath.Join(dir, "..2026_01")))
	w.next("two")
	w.nothing()
}

func TestWatchRemovedThenBack(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	must(t, os.Rename(w.path, w.path+".off"))
	e := w.next(fmt.Sprintf("error: file %q: no such file or directory", w.path))
	if e.doc.Name != w.path || e.doc.Body != nil || e.doc.Revision != "" {
		t.Errorf("document %+v beside an error", e.doc)
	}
	w.nothing() // Told once.
	must(t, os.Mkdir(w.path, 0o755))
	w.next(fmt.Sprintf("error: file %q: is a directory, want a regular file", w.path)) // Another error.
	must(t, os.Remove(w.path))
	must(t, os.Rename(w.path+".off", w.path))
	w.next("one") // The end of it, though nothing is new.
	w.nothing()
}

func TestWatchRemovedAndWrittenByAnEditor(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "0")
	w.rounds(20, func(round int) (string, bool) {
		text, begun := fmt.Sprint(round+1), time.Now()
		must(t, os.Remove(w.path))
		time.Sleep(10 * time.Millisecond)
		put(t, w.path, text)
		return text, time.Since(begun) < quiet/2 // no error before it
	})
}

func TestWatchGrownToFiveMegabytes(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	text := strings.Repeat("0123456789abcdef", 5<<16)
	put(t, w.path, text)
	w.next(text)
}

func TestWatchGrownTooLarge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, "one")
	w := watch(t, path, "")
	w.next("one")
	must(t, os.Truncate(path, DefaultMaxSize+1))
	w.next(fmt.Sprintf("error: file %q: is 16777217 bytes long, want at most 16777216", path))
	put(t, path, "one")
	w.next("one")
}

func TestWatchEmptied(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	must(t, os.Truncate(w.path, 0))
	e := w.next("")
	if e.doc.Revision != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("revision %s of nothing", e.doc.Revision)
	}
}

// TestWatchNeverTellsHalf truncates and then writes in two halves, 30 ms apart, at all offsets to the poll.
func TestWatchNeverTellsHalf(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "first whole text")
	w.rounds(25, func(round int) (string, bool) {
		time.Sleep(time.Duration(round*7) * time.Millisecond % MinPoll)
		half, text := fmt.Sprintf("%d half of a text, ", round), fmt.Sprintf("%d half of a text, and the other", round)
		begun := time.Now()
		f, err := os.Create(w.path)
		must(t, err)
		defer f.Close()
		_, err = f.WriteString(half)
		must(t, err)
		time.Sleep(30 * time.Millisecond)
		_, err = f.WriteString(text[len(half):])
		must(t, err)
		return text, time.Since(begun) < quiet-10*time.Millisecond // the file system's clock has ticks of up to 10 ms
	})
}

func TestWatchThousandQuickChanges(t *testing.T) {
	for name, replace := range map[string]func(path, text string) error{
		"in place": func(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) },
		"renamed": func(path, text string) error {
			if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, filepath.Join(t.TempDir(), "f.json"), "start")
			for i := range 1000 {
				must(t, replace(w.path, fmt.Sprintf("version %04d, all of it", i)))
				if i%2 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				w.mu.Lock()
				last, n := "", len(w.events)
				if n > 0 {
					last = w.events[n-1].text()
				}
				w.mu.Unlock()
				if last == "version 0999, all of it" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("last told %q of %d", last, n)
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for i, e := range w.events {
				if e.err != nil || (i > 0 && e.doc.Revision == w.events[i-1].doc.Revision) {
					t.Errorf("event %d: %q, as the one before it or an error", i, e.text())
				}
			}
		})
	}
}

// TestWatchOfAFileThatIsNeverLeftAlone: it is told all the same, after a second at most.
func TestWatchOfAFileThatIsNeverLeftAlone(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "start")
	stop := make(chan struct{})
	done := make(chan struct{})
	begin := time.Now()
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				os.WriteFile(w.path, fmt.Append(nil, i), 0o644)
			}
		}
	}()
	told := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.events) > 0
	}
	for !told() && time.Since(begin) < 10*time.Second {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	<-done
	if took := time.Since(begin); took > patience+2*MinPoll+500*time.Millisecond {
		t.Errorf("told after %v", took)
	}
}

// TestWatchIsPunctual measures from the write to the call: the poll and 80 ms at most, but for a busy machine.
func TestWatchIsPunctual(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "start")
	var worst, total time.Duration
	late := 0
	for i := range 20 {
		time.Sleep(time.Duration(i*13) * time.Millisecond % MinPoll)
		text := fmt.Sprint("version ", i)
		put(t, w.path, text)
		begin := time.Now()
		took := w.next(text).at.Sub(begin)
		worst = max(worst, took)
		total += took
		if took > MinPoll+80*time.Millisecond {
			late++
		}
	}
	t.Logf("told after %v on average, %v at worst", total/20, worst)
	if late > 6 { // a machine that has stopped for a moment makes some so
		t.Errorf("%d of 20 were told later than %v, the worst after %v", late, MinPoll+80*time.Millisecond, worst)
	}
}

// TestWatchNeverTellsATruncation rewrites in place while something else keeps the file system's journal busy. See
// stamp.halfway.
func TestWatchNeverTellsATruncation(t *testing.T) {
	t.Parallel()
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "start")
	busy, err := os.Create(w.path + ".busy")
	must(t, err)
	defer busy.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				busy.WriteAt(make([]byte, 4096), 0)
				busy.Truncate(0)
				busy.Sync()
			}
		}
	})
	w.rounds(40, func(round int) (string, bool) {
		time.Sleep(time.Duration(round*7) * time.Millisecond % MinPoll)
		text, begun := fmt.Sprint("version ", round), time.Now()
		put(t, w.path, text)
		return text, time.Since(begun) < quiet/2
	})
}
