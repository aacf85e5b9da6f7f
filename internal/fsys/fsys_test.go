package fsys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// However many files are set aside at one moment, none is lost.
func TestMoveAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a[*]")
	for i, want := range []string{"", "-2", "-3"} {
		if err := os.WriteFile(path, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		name, err := MoveAside(path, now, os.Rename)
		if want = path + ".damaged-20260504T030201Z" + want; err != nil || name != want {
			t.Fatalf("got %q and %v, want %q", name, err, want)
		}
		if text, err := os.ReadFile(name); err != nil || len(text) != 1 || text[0] != byte(i) {
			t.Errorf("%s holds %v, %v", name, text, err)
		}
	}
	if _, err := MoveAside(path, now, os.Rename); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	refused := errors.New("refused")
	if name, err := Aside(path, now, func(string) error { return refused }); name != "" || !errors.Is(err, refused) {
		t.Errorf("got %q and %v", name, err)
	}
}

func TestSyncDir(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// A lock is of one open file, until that is closed.
func TestTryLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first, second := open(), open()
	if held, err := TryLock(first); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no such locks here")
	} else if !held || err != nil {
		t.Fatalf("got %t, %v", held, err)
	}
	if held, err := TryLock(second); held || err != nil {
		t.Errorf("a second one: %t, %v", held, err)
	}
	first.Close()
	if held, err := TryLock(second); !held || err != nil {
		t.Errorf("after the first is closed: %t, %v", held, err)
	}
}
