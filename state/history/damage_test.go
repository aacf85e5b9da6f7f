package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// written returns a file with a day of a few flags, and what is in it.
func written(t testing.TB) []byte {
	t.Helper()
	path := temp(t)
	f := openFeed(t, path, quick())
	now, _ := minuteOf(start)
	for n := range uint32(300) {
		f.add(now+n, append(busyRows(5, int(n)), row("a", 1)))
		if n%16 == 15 {
			f.flush()
		}
	}
	f.flush()
	f.add(now+300, []Row{row("a", 1)}) // So that both metas are of a file with rows.
	f.flush()
	must(t, f.f.close())
	checkFile(t, path)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	must(t, err)
	var size int64
	must(t, db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	}))
	must(t, db.Close())
	return read(t, path)[:size] // Without what it has grown ahead.
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// aside returns what was set aside.
func aside(t testing.TB, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".damaged-*")
	must(t, err)
	return names
}

// survive opens a damaged file and works with it, and returns whether it was set aside. If so it must be what it was.
func survive(t *testing.T, what string, content []byte) bool {
	t.Helper()
	path := temp(t)
	must(t, os.WriteFile(path, content, 0o600))
	h := Open(path, quick())
	defer h.Close()
	for n := range 3 {
		if err := h.Add(minute(301+n), []Row{row("a", 1), row("new", 1)}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if s := query(t, h, "new", start, minute(400)); canary(s) != 3 {
		t.Errorf("%s: %d requests of three minutes", what, canary(s))
	}
	for _, to := range []int{400, 10_000, 100_000} {
		if s := query(t, h, "a", start, minute(to)); canary(s) > 304 || canary(s) < 3 {
			t.Errorf("%s: %d requests", what, canary(s))
		}
	}
	if _, err := h.Sparklines(start, minute(400), 10); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	names := aside(t, path)
	if got := h.Stats().SetAside; fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("%s: told that %v were set aside, found %v", what, got, names)
	}
	must(t, h.Close())
	if len(names) > 1 || (len(names) == 1 && !bytes.Equal(read(t, names[0]), content)) {
		t.Fatalf("%s: set aside: %v", what, names)
	}
	return len(names) == 1
}

func TestDamagedFiles(t *testing.T) {
	whole := written(t)
	zeroed := func(from, to int) []byte {
		b := bytes.Clone(whole)
		clear(b[from:to])
		return b
	}
	noise := make([]byte, len(whole))
	rand.NewChaCha8([32]byte{1}).Read(noise)
	noisy := func(from, to int) []byte {
		b := bytes.Clone(whole)
		copy(b[from:to], noise)
		return b
	}
	for _, c := range []struct {
		name    string
		content []byte
		aside   bool
	}{
		{"whole", whole, false},
		{"with more behind it", append(bytes.Clone(whole), noise[:9999]...), false},
		{"empty", nil, false},
		{"one byte", []byte{1}, true},
		{"text", []byte("hello\n"), true},
		{"one page", whole[:pageSize], true},
		{"two pages", whole[:2*pageSize], true},
		{"four pages", whole[:4*pageSize], true},
		{"without its last half", whole[:len(whole)/2], true},
		{"nothing but noise", noise, true},
		{"nothing but zeros", make([]byte, len(whole)), true},
		{"a few zeros", make([]byte, 100), false}, // As a file is when it was just made.
		{"first meta zeroed", zeroed(0, pageSize), false},
		{"second meta zeroed", zeroed(pageSize, 2*pageSize), false},
		{"both metas zeroed", zeroed(0, 2*pageSize), true},
		{"all but the metas zeroed", zeroed(2*pageSize, len(whole)), true},
		{"all but the metas noise", noisy(2*pageSize, len(whole)), true},
		{"metas noise", noisy(0, 2*pageSize), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := survive(t, c.name, c.content); got != c.aside {
				t.Errorf("set aside: %v, want %v", got, c.aside)
			}
		})
	}
}

// TestEachPageDamaged zeroes, garbles and swaps each page in turn.
func TestEachPageDamaged(t *testing.T) {
	whole := written(t)
	random := rand.New(rand.NewPCG(1, 2))
	set := 0
	pages := len(whole) / pageSize
	for p := range pages {
		for _, how := range []string{"zeroed", "garbled", "swapped"} {
			b := bytes.Clone(whole)
			page := b[p*pageSize : (p+1)*pageSize]
			switch how {
			case "zeroed":
				clear(page)
			case "garbled":
				for i := range page {
					page[i] = byte(random.Uint32())
				}
			case "swapped":
				q := random.IntN(pages)
				copy(page, whole[q*pageSize:(q+1)*pageSize])
			}
			if survive(t, fmt.Sprintf("page %d %s", p, how), b) {
				set++
			}
		}
	}
	t.Logf("%d of %d set aside", set, 3*pages)
	if set < pages {
		t.Errorf("only %d of %d set aside", set, 3*pages)
	}
}

// TestFlippedBytes changes a few bytes anywhere, headers of pages above all: what verify lets through bbolt must be able
// to bear, without the guard.
func TestFlippedBytes(t *testing.T) {
	whole := written(t)
	random := rand.New(rand.NewPCG(3, 4))
	set, rows := 0, 0
	for n := range 600 {
		b := bytes.Clone(whole)
		var what string
		for range 1 + random.IntN(3) {
			at := random.IntN(len(b))
			if n%2 == 0 {
				at = at/pageSize*pageSize + random.IntN(16+4*element)
			}
			b[at] ^= byte(1 + random.IntN(255))
			what += fmt.Sprintf("byte %d ", at)
		}
		broken, err := verify(bytes.NewReader(b), int64(len(b)))
		var d damage
		switch {
		case errors.As(err, &d):
			set++
		case err != nil:
			t.Errorf("%s: %v", what, err)
			continue
		default:
			rows += broken
			walk(t, what, b)
		}
		if n%10 == 0 && survive(t, what, b) != (err != nil) {
			t.Errorf("%s: not set aside, or though nothing is wrong with it", what)
		}
	}
	t.Logf("%d set aside, %d rows broken", set, rows)
	if set < 100 || rows < 100 {
		t.Errorf("%d set aside, %d rows broken", set, rows)
	}
}

// walk has bbolt read and write everything in a file.
func walk(t *testing.T, what string, content []byte) {
	t.Helper()
	path := temp(t)
	must(t, os.WriteFile(path, content, 0o600))
	err := guarded(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, r := range resolutions {
				if b := tx.Bucket([]byte(r.bucket)); b != nil {
					if err := b.ForEach(func(_, _ []byte) error { return nil }); err != nil {
						return err
					}
					if err := b.Put(keyOf(77, 1), make([]byte, 900)); err != nil {
						return err
					}
					if _, _, err := r.removeOldest(tx, b, 1<<40, func(rows int, _ int64) bool { return rows >= 100 }); err != nil {
						return err
					}
				}
			}
			return nil
		})
		return errors.Join(err, db.Close())
	})
	if err != nil {
		t.Errorf("%s: verified, but: %v", what, err)
	}
}

// TestBrokenRowsAreLeftOut damages the packed rows of one time only.
func TestBrokenRowsAreLeftOut(t *testing.T) {
	path := temp(t)
	h := Open(path, quick())
	for n := range 4 {
		must(t, h.Add(minute(n), []Row{row("a", 1), row(fmt.Sprintf("mark-%d", n), 1)}))
	}
	must(t, h.Close())
	b := bytes.ReplaceAll(read(t, path), []byte("mark-2"), []byte("MARK-2"))
	must(t, os.WriteFile(path, b, 0o600))
	h = Open(path, quick())
	defer h.Close()
	if st := h.Stats(); st.Damaged < 3 || st.SetAside != nil {
		t.Errorf("stats %+v", st)
	}
	if s := query(t, h, "a", start, minute(4)); len(s.Points) != 3 {
		t.Errorf("%d points, want all but the third", len(s.Points))
	}
	must(t, h.Add(minute(2), []Row{row("a", 1)}))
	if s := query(t, h, "a", start, minute(4)); len(s.Points) != 4 {
		t.Errorf("%d points when it was written again", len(s.Points))
	}
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	foreign := func(t *testing.T, path string) {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
		must(t, err)
		must(t, db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("theirs"))
			must(t, err)
			_, err = b.CreateBucket([]byte("nested"))
			return err
		}))
		must(t, db.Close())
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"a bbolt file", foreign, "is a bbolt file of something else, want a history"},
		{"a directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "is no regular file (d---------), want one or nothing"},
		{"a link to a directory", func(t *testing.T, path string) { must(t, os.Symlink(".", path)) }, "is no regular file"},
		{"a file in the directory's place", func(t *testing.T, path string) {
			must(t, os.Remove(filepath.Dir(path)))
			must(t, os.WriteFile(filepath.Dir(path), nil, 0o600))
		}, "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			must(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "history.db")
			c.make(t, path)
			h := Open(path, quick())
			defer h.Close()
			for n := range 5 {
				if err := h.Add(minute(n), []Row{row("a", 1)}); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("add: %v, want %s", err, c.want)
				}
			}
			if err := h.Health(); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("history %q: ", path)) {
				t.Errorf("health: %v", err)
			}
			s, err := h.Query("a", start, minute(10))
			if err == nil || canary(s) != 5 {
				t.Errorf("query: %v, %d requests", err, canary(s))
			}
			if st := h.Stats(); st.Waiting != 5 || st.SetAside != nil || st.Lost != 0 {
				t.Errorf("stats %+v", st)
			}
			must(t, os.RemoveAll(dir)) // What is there is not the history's to remove.
			must(t, h.Add(minute(5), []Row{row("a", 1)}))
			must(t, h.Health())
			wantSums(t, h, "a", 6)
		})
	}
}

func TestOnlySoManyAreSetAside(t *testing.T) {
	path := temp(t)
	now := time.Now()
	for n := range maxAside {
		must(t, os.WriteFile(path, []byte{byte(n)}, 0o600))
		if name, err := setAside(path, now); err != nil || !bytes.Equal(read(t, name), []byte{byte(n)}) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	must(t, os.WriteFile(path, []byte("damaged"), 0o600))
	h := Open(path, quick())
	defer h.Close()
	if err := h.Health(); err == nil || !strings.Contains(err.Error(), "10 damaged files were set aside already, want fewer than 10") {
		t.Errorf("health: %v", err)
	}
	if len(aside(t, path)) != maxAside || string(read(t, path)) != "damaged" {
		t.Error("one was removed or written over")
	}
	must(t, os.Remove(aside(t, path)[0]))
	must(t, h.Add(minute(0), nil))
}
