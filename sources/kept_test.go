package sources

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

var keptAt = time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)

func keptDocument(text string) Document {
	return newDocument("https://flags.example/f.json?…", []byte(text), keptAt)
}

func newKept(t testing.TB) *Kept {
	return &Kept{Path: KeptPath(t.TempDir(), "https://jan:hunter2@flags.example/f.json?token=x")}
}

// wantKept wants the copy to be of a text, and nothing but it in its directory.
func wantKept(t *testing.T, k *Kept, text string) {
	t.Helper()
	doc, err := k.Load()
	if err != nil {
		t.Fatal(err)
	}
	if want := keptDocument(text); doc.Name != want.Name || string(doc.Body) != text || doc.Revision != want.Revision || !doc.ReadAt.Equal(want.ReadAt) {
		t.Errorf("got %+v, want %+v", doc, want)
	}
	wantFiles(t, k, 1)
}

// wantFiles wants that many files in the directory of a copy, all of them for the owner only.
func wantFiles(t *testing.T, k *Kept, want int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(k.Path))
	must(t, err)
	if len(entries) != want {
		t.Errorf("files %v, want %d", entries, want)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || (runtime.GOOS != "windows" && info.Mode() != keptPerm) {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestKeptPath(t *testing.T) {
	seen := map[string]bool{}
	for _, url := range []string{
		"", "https://flags.example/f.json", "https://flags.example/f.json?token=a", "https://flags.example/f.json?token=b",
		"https://jan:hunter2@flags.example/f.json", "https://jan:hunter3@flags.example/f.json", "https://" + strings.Repeat("a", 5000),
	} {
		path := KeptPath("dir", url)
		name := filepath.Base(path)
		if seen[path] || filepath.Dir(path) != "dir" || len(name) > 64 || path != KeptPath("dir", url) || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			t.Errorf("%.80s: %s", url, path)
		}
		for _, part := range []string{"flags", "example", "token", "jan", "hunter"} {
			if strings.Contains(name, part) {
				t.Errorf("%s tells %s", name, part)
			}
		}
		seen[path] = true
	}
}

func TestKept(t *testing.T) {
	k := &Kept{Path: KeptPath(filepath.Join(t.TempDir(), "made", "anew"), "x")}
	_, err := k.Load()
	if want := fmt.Sprintf("reading the copy %q: ", k.Path); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("none: got %v, want %s…", err, want)
	}
	for _, text := range []string{"one", "two", "", "\n", "one\ntwo\n", "two", strings.Repeat("0123456789abcdef", 1<<16), "\x00\xff"} {
		must(t, k.Save(keptDocument(text)))
		wantKept(t, k, text)
	}
}

func TestKeptSkipsWhatIsThere(t *testing.T) {
	k := newKept(t)
	must(t, k.Save(keptDocument("one")))
	before, err := os.Stat(k.Path)
	must(t, err)
	again := keptDocument("one")
	again.ReadAt = again.ReadAt.Add(time.Hour)
	must(t, k.Save(again))
	if after, err := os.Stat(k.Path); err != nil || !os.SameFile(before, after) {
		t.Errorf("written again: %v", err)
	}
	wantKept(t, k, "one")
	must(t, k.Save(keptDocument("two")))
	wantKept(t, k, "two")
}

func TestKeptRefuses(t *testing.T) {
	k := newKept(t)
	must(t, k.Save(keptDocument("one")))
	forged, late, long := keptDocument("two"), keptDocument("two"), keptDocument("two")
	forged.Revision = keptDocument("six").Revision
	late.ReadAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	long.Name = strings.Repeat("a", maxKeptHead)
	for _, c := range []struct {
		doc  Document
		want string
	}{
		{Document{Name: "x"}, "the document's revision is not that of its body, want a document as a source gave it"},
		{forged, "the document's revision is not that of its body, want a document as a source gave it"},
		{keptDocument("12345"), "the document is 5 bytes long, want at most 4"},
		{late, "encoding what belongs to the document: "},
		{long, "the document's name makes a head of 65"},
	} {
		k.MaxSize = 4
		err := k.Save(c.doc)
		if want := fmt.Sprintf("keeping a copy in %q: %s", k.Path, c.want); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	wantKept(t, k, "one")
}

func TestKeptTooLarge(t *testing.T) {
	for _, text := range []string{"12345", strings.Repeat("a", 2*maxKeptHead)} {
		k := newKept(t)
		must(t, k.Save(keptDocument(text)))
		small := &Kept{Path: k.Path, MaxSize: 4}
		if _, err := small.Load(); err == nil || err.Error() != fmt.Sprintf("reading the copy %q: is larger than 4 bytes", k.Path) {
			t.Errorf("got %v", err)
		}
		wantKept(t, k, text) // It is still there.
		must(t, small.Save(keptDocument("1234")))
		wantKept(t, small, "1234")
	}
}

func TestKeptInThePlaceOfAnother(t *testing.T) {
	k := newKept(t)
	must(t, os.MkdirAll(filepath.Join(k.Path, "a"), 0o700))
	if _, err := k.Load(); err == nil || err.Error() != fmt.Sprintf("reading the copy %q: is a directory, want a regular file", k.Path) {
		t.Errorf("got %v", err)
	}
	err := k.Save(keptDocument("one"))
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("keeping a copy in %q: ", k.Path)) || strings.Contains(err.Error(), keptTemporary) {
		t.Errorf("got %v", err)
	}
	wantEntries := func(dir string) {
		t.Helper()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("files %v, %v", entries, err)
		}
	}
	wantEntries(filepath.Dir(k.Path))

	below := &Kept{Path: filepath.Join(t.TempDir(), "file", "kept")}
	put(t, filepath.Dir(below.Path), "")
	if err := below.Save(keptDocument("one")); err == nil || !strings.HasSuffix(err.Error(), ": not a directory") {
		t.Errorf("got %v", err)
	}
}

// TestKeptSaveThatFails makes each step fail: the copy is the earlier one or, once it is renamed, the new one, and nothing
// is left behind.
func TestKeptSaveThatFails(t *testing.T) {
	for step := keptCreate; step <= keptSyncDir; step++ {
		k := newKept(t)
		must(t, k.Save(keptDocument("one")))
		k.step = func(s keptStep) error {
			if s == step {
				return syscall.ENOSPC
			}
			return nil
		}
		err := k.Save(keptDocument("two"))
		if !errors.Is(err, syscall.ENOSPC) || err.Error() != fmt.Sprintf("keeping a copy in %q: %v", k.Path, syscall.ENOSPC) {
			t.Errorf("step %d: got %v", step, err)
		}
		want := "one"
		if step > keptRename {
			want = "two"
		}
		wantKept(t, k, want)
		if step == keptSyncDir { // It is not durable yet: the next one is not content with its being there.
			if err := k.Save(keptDocument("two")); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("got %v", err)
			}
		}
		k.step = nil
		must(t, k.Save(keptDocument("two")))
		wantKept(t, k, "two")
	}
}

// TestKeptTakenForALeftover removes the file under a Save: it begins anew, but not for ever.
func TestKeptTakenForALeftover(t *testing.T) {
	for _, times := range []int{1, keptTries - 1, keptTries} {
		k := newKept(t)
		must(t, k.Save(keptDocument("one")))
		left := times
		k.step = func(s keptStep) error {
			if s != keptRename || left == 0 {
				return nil
			}
			left--
			all, err := filepath.Glob(k.Path + keptTemporary + "*")
			if err != nil || len(all) != 1 {
				t.Errorf("temporary files %v, %v", all, err)
			}
			return os.Remove(all[0])
		}
		err := k.Save(keptDocument("two"))
		if (err != nil) != (times == keptTries) || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
			t.Errorf("%d times: %v", times, err)
		}
		if err == nil {
			wantKept(t, k, "two")
		} else {
			wantKept(t, k, "one")
		}
	}
}

func TestKeptLeftovers(t *testing.T) {
	k := newKept(t)
	must(t, k.Save(keptDocument("one")))
	for i := range 3 {
		must(t, os.WriteFile(fmt.Sprint(k.Path, keptTemporary, i), []byte("half of"), keptPerm))
	}
	other := filepath.Join(filepath.Dir(k.Path), "another"+keptTemporary+"1")
	must(t, os.WriteFile(other, nil, keptPerm))
	if _, err := k.Load(); err != nil {
		t.Error(err)
	}
	wantFiles(t, k, 2)
	must(t, os.Remove(other))

	// One that is being written is left alone.
	f, err := os.Create(k.Path + keptTemporary + "4")
	must(t, err)
	defer f.Close()
	must(t, f.Chmod(keptPerm))
	if _, err := fsys.TryLock(f); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	must(t, k.Save(keptDocument("two")))
	wantFiles(t, k, 2)
	f.Close()
	must(t, os.Chtimes(f.Name(), time.Time{}, time.Now().Add(-2*leftoverAge))) // Where nothing else tells.
	wantKept(t, k, "two")
}

// TestKeptByMany saves and loads from several at once: each copy that is ever seen is whole, and one of the last ones
// stays.
func TestKeptByMany(t *testing.T) {
	path := newKept(t).Path
	text := func(g, i int) string { return strings.Repeat(fmt.Sprintf("%d of %d, ", i, g), 2000) }
	const rounds = 30
	last := map[string]bool{}
	var wg sync.WaitGroup
	for g := range 4 {
		last[text(g, rounds-1)] = true
		wg.Go(func() {
			for i := range rounds {
				if err := (&Kept{Path: path}).Save(keptDocument(text(g, i))); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				if doc, err := (&Kept{Path: path}).Load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s, %v", doc.Revision, err)
				}
			}
		})
	}
	wg.Wait()
	k := &Kept{Path: path}
	doc, err := k.Load()
	if err != nil || !last[string(doc.Body)] {
		t.Errorf("%.30q, %v", doc.Body, err)
	}
	wantFiles(t, k, 1)
}
