package webhook

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func init() {
	children["tmpfs"] = func(args []string) {
		fill(filepath.Join(args[0], "queue", "webhooks.db"), func() error { return os.Remove(filepath.Join(args[0], "ballast")) })
	}
}

// TestFullDisk needs the right to mount; TestFileThatMayNotGrow runs everywhere and tests the same. The disk is full from
// the beginning, so that not even an empty queue fits.
func TestFullDisk(t *testing.T) {
	for _, ballast := range []int{1024 << 10, 900 << 10} {
		dir := t.TempDir()
		if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("mounting a small disk: %v", err)
		}
		defer syscall.Unmount(dir, syscall.MNT_DETACH)
		_ = os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, ballast), 0o600)
		out, err := child("tmpfs", dir).Output()
		if err != nil || string(out) != "fine\n" {
			t.Errorf("child: %v\n%s", err, out)
		}
	}
}
