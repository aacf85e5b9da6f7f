//go:build unix

package sources

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNamedPipeIsRefusedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.json")
	must(t, syscall.Mkfifo(path, 0o644))
	link := path + ".link"
	must(t, os.Symlink(path, link))
	for _, path := range []string{path, link} {
		begin := time.Now()
		_, err := (&File{Path: path}).Load(t.Context())
		if want := fmt.Sprintf("file %q: is a named pipe, want a regular file", path); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		// Also where it takes the place of a file between the look and the opening.
		if _, err := readOnce(path, 1024); err == nil || err.Error() != "is a named pipe, want a regular file" {
			t.Errorf("readOnce: %v", err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
	}
}

func TestOtherKindsAreRefused(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	for path, want := range map[string]string{socket: "is a socket", "/dev/null": "is a device"} {
		_, err := (&File{Path: path}).Load(t.Context())
		if want := fmt.Sprintf("file %q: %s, want a regular file", path, want); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestPermission takes the right to read away and gives it back. Root has it always: then the test runs itself as
// somebody else.
func TestPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		runAsNobody(t)
		return
	}
	w := watch(t, filepath.Join(t.TempDir(), "f.json"), "one")
	must(t, os.Chmod(w.path, 0))
	w.next(fmt.Sprintf("error: file %q: permission denied", w.path))
	w.nothing()
	must(t, os.Chmod(w.path, 0o644))
	w.next("one")
}

func runAsNobody(t *testing.T) {
	const nobody = 65534
	dir, err := os.MkdirTemp("", "sources-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	binary, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "test"), binary, 0o755))
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^TestPermission$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPermission") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
