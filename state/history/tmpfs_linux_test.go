package history

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func init() {
	children["tmpfs"] = func(dir string) {
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 700<<10), 0o600); err != nil {
			fail("%v", err)
		}
		fill(filepath.Join(dir, "history.db"), syscall.ENOSPC, func() error { return os.Remove(ballast) })
		os.Stdout.WriteString("fine\n")
	}
}

// TestFullDisk needs the right to mount; TestFileThatMayNotGrow runs everywhere and tests the same.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1536k"); err != nil {
		t.Skipf("mounting a small disk: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	wantFine(t, child("tmpfs", dir))
}
