package sources

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// onlyAside is the name of the one copy that was set aside.
func onlyAside(t *testing.T, k *Kept) string {
	t.Helper()
	all, err := filepath.Glob(k.Path + ".damaged-*")
	if err != nil || len(all) != 1 {
		t.Fatalf("set aside: %v, %v", all, err)
	}
	return all[0]
}

// TestKeptDamaged changes each byte of a copy, cuts it off at each, and adds to it: it is an error that says so, and what
// was there is still there, under another name.
func TestKeptDamaged(t *testing.T) {
	k := newKept(t)
	must(t, k.Save(keptDocument("one")))
	whole, err := os.ReadFile(k.Path)
	must(t, err)
	damaged := [][]byte{append(bytes.Clone(whole), 0), bytes.Repeat([]byte("a"), 2*maxKeptHead), []byte("\n"), make([]byte, len(whole))}
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		damaged = append(damaged, changed, whole[:i])
	}
	for i, text := range damaged {
		must(t, os.WriteFile(k.Path, text, keptPerm))
		_, err := k.Load()
		aside := onlyAside(t, k)
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("reading the copy %q: is damaged: it", k.Path)) ||
			!strings.HasSuffix(err.Error(), fmt.Sprintf("; set aside as %q", aside)) || errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%q: got %v", text, err)
		}
		if left, err := os.ReadFile(aside); err != nil || !bytes.Equal(left, text) {
			t.Fatalf("%q: set aside %q, %v", text, left, err)
		}
		if _, err := k.Load(); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%q: got %v afterwards", text, err)
		}
		if i%10 == 0 { // Save sees it too.
			must(t, os.Rename(aside, k.Path))
			must(t, k.Save(keptDocument("one")))
			if left, err := os.ReadFile(onlyAside(t, k)); err != nil || !bytes.Equal(left, text) {
				t.Fatalf("%q: set aside %q, %v", text, left, err)
			}
			aside = onlyAside(t, k)
		}
		must(t, os.Remove(aside))
	}
	must(t, k.Save(keptDocument("two")))
	wantKept(t, k, "two")
}

// TestKeptDamagedAgain: a second one of the same second does not replace the first.
func TestKeptDamagedAgain(t *testing.T) {
	k := newKept(t)
	names := map[string]string{}
	for i := range 5 {
		text := fmt.Sprint("damaged ", i)
		must(t, os.WriteFile(k.Path, []byte(text), keptPerm))
		info, err := os.Stat(k.Path)
		must(t, err)
		aside, err := k.setAside(info, keptAt)
		if err != nil || names[aside] != "" {
			t.Fatalf("set aside as %q, %v", aside, err)
		}
		names[aside] = text
	}
	for name, text := range names {
		if left, err := os.ReadFile(name); err != nil || string(left) != text {
			t.Errorf("%s: %q, %v", name, left, err)
		}
	}
}

// TestKeptDamagedButReplaced: what somebody saved after the damage was seen is not set aside.
func TestKeptDamagedButReplaced(t *testing.T) {
	k := newKept(t)
	put(t, k.Path+".old", "damaged")
	info, err := os.Stat(k.Path + ".old")
	must(t, err)
	if aside, err := k.setAside(info, keptAt); aside != "" || err != nil {
		t.Errorf("of none: %q, %v", aside, err)
	}
	must(t, k.Save(keptDocument("one")))
	if aside, err := k.setAside(info, keptAt); aside != "" || err != nil {
		t.Errorf("of another one: %q, %v", aside, err)
	}
	must(t, os.Remove(k.Path+".old"))
	wantKept(t, k, "one")
}

// TestKeptReplacedWhileItIsSetAside has what comes between the last look at a damaged copy and its renaming.
func TestKeptReplacedWhileItIsSetAside(t *testing.T) {
	for _, c := range []struct {
		name      string
		meanwhile func(k *Kept) error // When the damaged one is gone.
		want      string
		aside     int
	}{
		{"saved", func(k *Kept) error { return k.Save(keptDocument("two")) }, "two", 0},
		{"set aside by another", func(k *Kept) error { return nil }, "", 0},
		{"damaged again", func(k *Kept) error { return os.WriteFile(k.Path, []byte("damaged too"), keptPerm) }, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKept(t)
			must(t, os.WriteFile(k.Path, []byte("damaged"), keptPerm))
			damaged, err := os.Open(k.Path) // Its inode is not given to the next one.
			must(t, err)
			defer damaged.Close()
			k.step = func(s keptStep) error {
				if s != keptAside {
					return nil
				}
				k.step = nil
				return errors.Join(os.Remove(k.Path), c.meanwhile(&Kept{Path: k.Path}))
			}
			doc, err := k.Load()
			if string(doc.Body) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v", doc.Body, err)
			}
			if c.want != "" {
				wantKept(t, k, c.want)
				return
			}
			wantFiles(t, k, c.aside)
			if c.aside > 0 {
				if left, err := os.ReadFile(onlyAside(t, k)); err != nil || string(left) != "damaged too" {
					t.Errorf("set aside %q, %v", left, err)
				}
			}
		})
	}
}

// TestKeptThatCannotBeSetAside stays, and is not saved over.
func TestKeptThatCannotBeSetAside(t *testing.T) {
	k := newKept(t)
	must(t, os.WriteFile(k.Path, []byte("damaged"), keptPerm))
	k.step = func(s keptStep) error {
		if s == keptAside {
			return &os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.EACCES}
		}
		return nil
	}
	const want = "is damaged: it does not begin as a copy does; setting it aside: permission denied"
	if _, err := k.Load(); err == nil || err.Error() != fmt.Sprintf("reading the copy %q: %s", k.Path, want) {
		t.Errorf("got %v", err)
	}
	if err := k.Save(keptDocument("one")); err == nil || err.Error() != fmt.Sprintf("keeping a copy in %q: %s", k.Path, want) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadFile(k.Path); err != nil || string(left) != "damaged" {
		t.Errorf("left %q, %v", left, err)
	}
	wantFiles(t, k, 1)
}

// FuzzKeptLoad loads any bytes: what comes is what was saved, or an error, and the bytes are not lost.
func FuzzKeptLoad(f *testing.F) {
	for _, text := range []string{"", "one", "one\ntwo"} {
		doc := keptDocument(text)
		head, err := encodeKeptHead(doc)
		must(f, err)
		f.Add(append(head, text...))
		f.Add(append(head, "x"+text...))
	}
	f.Add([]byte{})
	f.Add([]byte(keptMark + "\n"))
	f.Add([]byte(keptMark + "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a {}\n"))
	f.Add([]byte(keptMark + "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b null\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k := newKept(t)
		must(t, os.WriteFile(k.Path, text, keptPerm))
		doc, err := k.Load()
		if err != nil {
			if left, readErr := os.ReadFile(onlyAside(t, k)); readErr != nil || !bytes.Equal(left, text) {
				t.Errorf("%v; left %q, %v", err, left, readErr)
			}
			return
		}
		if again := newDocument(doc.Name, doc.Body, doc.ReadAt); again.Revision != doc.Revision || !bytes.HasSuffix(text, doc.Body) {
			t.Errorf("got %+v of %q", doc, text)
		}
		other := &Kept{Path: k.Path + ".other"}
		must(t, other.Save(doc))
		saved, err := other.Load()
		if err != nil || saved.Name != doc.Name || saved.Revision != doc.Revision || !saved.ReadAt.Equal(doc.ReadAt) {
			t.Errorf("saved again: %+v, %v, want %+v", saved, err, doc)
		}
	})
}
