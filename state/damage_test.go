package state

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// filled returns a directory with some trips in it, their ids, and the journal.
func filled(t *testing.T, n int) (dir string, trips []string, journal []byte) {
	t.Helper()
	dir = t.TempDir()
	s := Open(dir, quick())
	for range n {
		tr, _ := s.Trip(start, TripInput{Flag: "a", Test: "errors", Evidence: []byte(`{"p":0.001}`)})
		trips = append(trips, tr.ID)
	}
	mustClose(t, s)
	return dir, trips, read(t, s.path(JournalName))
}

func TestOpenOfADamagedJournal(t *testing.T) {
	_, trips, text := filled(t, 3)
	lines := bytes.SplitAfter(text, []byte("\n"))
	noise := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(noise)
	for _, c := range []struct {
		name  string
		text  []byte
		want  []string
		aside bool
		lost  int
	}{
		{"empty", nil, nil, false, 0},
		{"torn", text[:len(text)-10], trips[:2], false, 0},
		{"one byte", slices.Concat(lines[0], bytes.Replace(lines[1], []byte("errors"), []byte("errorz"), 1), lines[2]), []string{trips[0], trips[2]}, true, 1},
		{"a piece missing", slices.Concat(text[:30], text[60:]), trips[1:], true, 1},
		{"garbage before", slices.Concat([]byte("garbage\x00\xff\n"), text), trips, true, 1},
		{"garbage behind", slices.Concat(text, []byte("\x00\x00\x00")), trips, true, 1},
		{"invalid UTF-8 between", slices.Concat(lines[0], []byte("\xff\xfe\xfd\n"), lines[1], lines[2]), trips, true, 1},
		{"a line of 3 MB between", slices.Concat(lines[0], bytes.Repeat([]byte("z"), 3<<20), []byte("\n"), lines[1], lines[2]), trips, true, 1},
		{"a line of 20 MB between", slices.Concat(lines[0], bytes.Repeat([]byte("z"), 20<<20), []byte("\n"), lines[1], lines[2]), trips, true, 1},
		{"another format", []byte("SQLite format 3\x00"), nil, true, 1},
		{"noise", noise, nil, true, -1},
		{"only line feeds", bytes.Repeat([]byte("\n"), 1000), nil, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, JournalName)
			write(t, path, c.text)
			s := Open(dir, quick())
			wantOpen(t, s, "a", c.want...)
			h := s.Health()
			if h.Degraded || (len(h.SetAside) == 1) != c.aside {
				t.Errorf("health %+v", h)
			}
			if c.aside {
				if !bytes.Equal(read(t, h.SetAside[0]), c.text) || !strings.HasPrefix(h.SetAside[0], path+".damaged-") {
					t.Errorf("%s is not what was there", h.SetAside[0])
				}
				if h.Salvaged != len(c.want) || (h.Lost != c.lost && c.lost >= 0) || h.Lost == 0 {
					t.Errorf("salvaged %d, lost %d; want %d, %d", h.Salvaged, h.Lost, len(c.want), c.lost)
				}
			}
			one := trip(t, s, "a")
			mustClose(t, s)

			again := Open(dir, quick())
			wantOpen(t, again, "a", append(slices.Clone(c.want), one.ID)...)
			if h := again.Health(); h.SetAside != nil {
				t.Errorf("damaged again: %+v", h)
			}
			mustClose(t, again)
		})
	}
}

func TestDamagedFilesAreNeverWrittenOver(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, JournalName)
	want := map[string]bool{}
	for i := range 4 {
		text := fmt.Sprintf("damage %d\n", i)
		want[text] = true
		write(t, path, []byte(text))
		mustClose(t, Open(dir, quick())) // Several in one second.
	}
	names, _ := filepath.Glob(path + ".damaged-*")
	for _, name := range names {
		delete(want, string(read(t, name)))
	}
	if len(names) != 4 || len(want) != 0 {
		t.Errorf("%v, missing %v", names, want)
	}
}

func TestDamagedAuditDoesNotTouchTrips(t *testing.T) {
	dir, trips, _ := filled(t, 2)
	path := filepath.Join(dir, AuditName)
	text := read(t, path)
	write(t, path, append([]byte("damage\n"), text...))
	s := Open(dir, quick())
	defer s.Close()
	wantOpen(t, s, "a", trips...)
	if got := s.Audit(AuditFilter{}); len(got) != 2 {
		t.Errorf("%d audit entries", len(got))
	}
	if h := s.Health(); len(h.SetAside) != 1 || !strings.HasPrefix(h.SetAside[0], path+".damaged-") || h.Salvaged != 2 {
		t.Errorf("health %+v", h)
	}
}

func TestHundredMegabytesOfGarbage(t *testing.T) {
	dir, trips, text := filled(t, 2)
	path := filepath.Join(dir, JournalName)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	for i := range 10 {
		f.Write(noise)
		if i == 4 {
			f.Write([]byte("\n"))
			f.Write(text)
		}
	}
	f.Close()
	begin := time.Now()
	s := Open(dir, quick())
	t.Logf("opened in %v", time.Since(begin))
	defer s.Close()
	wantOpen(t, s, "a", trips...)
	if h := s.Health(); h.Degraded || len(h.SetAside) != 1 {
		t.Errorf("health %+v", h)
	}
	trip(t, s, "b")
}

func TestDirectoryInThePlaceOfTheJournal(t *testing.T) {
	testInThePlace(t, func(path string) error { return os.MkdirAll(filepath.Join(path, "sub"), 0o700) })
}

func testInThePlace(t *testing.T, put func(path string) error) {
	t.Helper()
	dir := t.TempDir()
	if err := put(filepath.Join(dir, JournalName)); err != nil {
		t.Fatal(err)
	}
	s := Open(dir, quick())
	defer s.Close()
	trip(t, s, "a")
	h := s.Health()
	if h.Degraded || len(h.SetAside) != 1 {
		t.Fatalf("health %+v", h)
	}
	if st, err := os.Lstat(h.SetAside[0]); err != nil || st.Mode().IsRegular() {
		t.Errorf("set aside: %v, %v", st, err)
	}
}

func TestLinkInThePlaceOfTheJournal(t *testing.T) {
	dir, trips, text := filled(t, 2)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	path := filepath.Join(dir, JournalName)
	write(t, elsewhere, append(text, "damage\n"...))
	os.Remove(path)
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	s := Open(dir, quick())
	defer s.Close()
	wantOpen(t, s, "a", trips...)
	if h := s.Health(); len(h.SetAside) != 1 || !bytes.Equal(read(t, h.SetAside[0]), read(t, elsewhere)) {
		t.Errorf("health %+v", h)
	}
}

func TestDirectoryThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	write(t, blocked, []byte("x"))
	s := Open(filepath.Join(blocked, "state"), quick())
	tr, p := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	if p.Wait(t.Context()) == nil {
		t.Error("the trip counts as safe")
	}
	if h := s.Health(); !h.Degraded || h.Since.IsZero() || h.Err == nil || h.Waiting != 2 {
		t.Errorf("health %+v", h)
	}
	os.Remove(blocked)
	eventually(t, "healthy", func() bool { h := s.Health(); return !h.Degraded && h.Waiting == 0 })
	mustClose(t, s)
	again := Open(s.dir, quick())
	defer again.Close()
	wantOpen(t, again, "a", tr.ID)
}

// TestFilesThatVanishUnderTheStore: memory is the truth, and what is on disk is made equal to it again.
func TestFilesThatVanishUnderTheStore(t *testing.T) {
	_, _, other := filled(t, 1)
	for name, harm := range map[string]func(s *Store) error{
		"journal removed": func(s *Store) error { return os.Remove(s.path(JournalName)) },
		"directory removed": func(s *Store) error { // at once: the store puts files back while they are removed one by one
			gone := s.dir + "-gone"
			return errors.Join(os.Rename(s.dir, gone), os.RemoveAll(gone))
		},
		"directory renamed": func(s *Store) error { return os.Rename(s.dir, s.dir+"-old") },
		"journal emptied":   func(s *Store) error { return os.Truncate(s.path(JournalName), 0) },
		"journal cut":       func(s *Store) error { return os.Truncate(s.path(JournalName), 50) },
		"journal replaced":  func(s *Store) error { return os.WriteFile(s.path(JournalName), other, 0o600) },
		"journal renamed":   func(s *Store) error { return os.Rename(s.path(JournalName), s.path("x")) },
		"audit removed":     func(s *Store) error { return os.Remove(s.path(AuditName)) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, idle := range []bool{false, true} {
				s := Open(filepath.Join(t.TempDir(), "state"), quick())
				trip(t, s, "b")
				eventually(t, "all written", func() bool { return s.Health().Waiting == 0 })
				if err := harm(s); err != nil {
					t.Fatal(err)
				}
				if idle {
					time.Sleep(50 * time.Millisecond) // Ten times the pause between two looks.
				} else {
					trip(t, s, "b")
				}
				want := ids(s.Flag("b").Trips)
				mustClose(t, s)
				again := Open(s.dir, quick())
				wantOpen(t, again, "b", want...)
				if got := len(again.Audit(AuditFilter{Flag: "b"})); got != len(want) {
					t.Errorf("idle %v: %d audit entries, want %d", idle, got, len(want))
				}
				mustClose(t, again)
			}
		})
	}
}
