package sources

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "features.json")
	put(t, path, "abc")
	f := &File{Path: path}
	doc, err := f.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if doc.Name != path || f.Name() != path || string(doc.Body) != "abc" ||
		doc.Revision != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" || time.Since(doc.ReadAt) > time.Minute {
		t.Errorf("document %+v", doc)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, want string
		make       func(path string) error
	}{
		{"missing", "no such file or directory", func(string) error { return nil }},
		{"directory", "is a directory, want a regular file", func(path string) error { return os.Mkdir(path, 0o755) }},
		{"too large", "is 1025 bytes long, want at most 1024", func(path string) error {
			return os.WriteFile(path, make([]byte, 1025), 0o644)
		}},
		{"dangling link", "no such file or directory", func(path string) error { return os.Symlink("nowhere", path) }},
		{"link to itself", "too many levels of symbolic links", func(path string) error { return os.Symlink(path, path) }},
		{"link to a directory", "is a directory, want a regular file", func(path string) error { return os.Symlink(dir, path) }},
		{"below a file", "not a directory", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.name)
			if c.make != nil {
				must(t, c.make(path))
			} else {
				must(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644))
				path = filepath.Join(dir, "plain", "f.json")
			}
			doc, err := (&File{Path: path, MaxSize: 1024}).Load(t.Context())
			want := fmt.Sprintf("file %q: %s", path, c.want)
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			if doc.Body != nil || doc.Revision != "" || doc.Name != path {
				t.Errorf("document %+v", doc)
			}
		})
	}
	if _, err := (&File{Path: filepath.Join(dir, "x")}).Load(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not ErrNotExist", err)
	}
}

func TestLoadOfTheLargestSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, strings.Repeat("x", 1024))
	if doc, err := (&File{Path: path, MaxSize: 1024}).Load(t.Context()); err != nil || len(doc.Body) != 1024 {
		t.Errorf("%d bytes, %v", len(doc.Body), err)
	}
}

func TestLoadWhenItIsTooLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, "abc")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&File{Path: path}).Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled while the file is young", err)
	}
}

func TestLoadIsSafeForConcurrentUse(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, err := w.file.Load(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestTimesOfOtherClocks has files whose times are ahead or far in the past: they are read without waiting for ever.
func TestTimesOfOtherClocks(t *testing.T) {
	for name, ahead := range map[string]time.Duration{
		"half a second ahead": 500 * time.Millisecond, "a day ahead": 24 * time.Hour, "a year ago": -365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.json")
			put(t, path, "abc")
			at := time.Now().Add(ahead)
			must(t, os.Chtimes(path, at, at))
			begin := time.Now()
			f := &File{Path: path}
			if doc, err := f.Load(t.Context()); err != nil || string(doc.Body) != "abc" {
				t.Errorf("%q, %v", doc.Body, err)
			}
			if took := time.Since(begin); took > patience/2 {
				t.Errorf("took %v", took)
			}
			if f.asBefore() != (ahead < 0) {
				t.Errorf("taken to be as before: %v", f.asBefore())
			}
		})
	}
}

func TestUnrest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.json")
	put(t, path, "abc")
	s, err := stat(path)
	must(t, err)
	other := path + ".other"
	put(t, other, "def")
	replaced, err := stat(other)
	must(t, err)
	at := s.modified
	empty := s
	empty.size = 0
	none := stamp{}
	for _, c := range []struct {
		name          string
		now           stamp
		age           time.Duration
		known, waited stamp
		want          time.Duration
	}{
		{"just written", s, 0, none, none, quiet},
		{"a little later", s, 15 * time.Millisecond, none, none, quiet - 15*time.Millisecond},
		{"old enough", s, quiet, none, none, 0},
		{"old", s, time.Hour, none, none, 0},
		{"old and known", s, time.Hour, s, none, 0},
		{"old and another one", s, time.Hour, replaced, none, quiet},
		{"old and another one, waited for", s, time.Hour, replaced, s, 0},
		{"old and another one, waited for yet another", s, time.Hour, replaced, empty, quiet},
		{"truncated, times not yet set", empty, time.Hour, s, none, quiet},
		{"truncated, times not yet set, waited for", empty, time.Hour, s, empty, quiet},
		{"old and empty, waited for", empty, time.Hour, none, empty, 0},
		{"old and empty", empty, time.Hour, none, none, quiet},
		{"ahead a little", s, -10 * time.Millisecond, none, none, quiet},
		{"ahead a little, waited for", s, -10 * time.Millisecond, none, s, 0},
		{"far ahead", s, -time.Hour, none, none, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := unrest(c.now, c.known, c.waited, at.Add(c.age)); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestPollIsKept counts the looks by errors that are new each time, on a clock of its own.
func TestPollIsKept(t *testing.T) {
	for _, c := range []struct{ poll, want time.Duration }{
		{0, 2 * time.Second}, {-1, 2 * time.Second}, {time.Millisecond, 100 * time.Millisecond}, {5 * time.Second, 5 * time.Second},
	} {
		t.Run(c.poll.String(), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(dir, "f.json")
				ctx, cancel := context.WithCancel(t.Context())
				n := 0
				begin := time.Now()
				(&File{Path: path, Poll: c.poll, MaxSize: 1}).Watch(ctx, func(_ Document, err error) {
					if want := fmt.Sprintf("is %d bytes long", n+1); n > 0 && !strings.Contains(err.Error(), want) {
						t.Errorf("%v, want %s", err, want)
					}
					n++
					must(t, os.WriteFile(path, make([]byte, n+1), 0o644))
					if n == 11 {
						cancel()
					}
				})
				if took := time.Since(begin); took < 10*c.want || took > 10*c.want+quiet {
					t.Errorf("10 polls took %v, want %v each", took, c.want)
				}
			})
		})
	}
}
