//go:build unix

package history

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	children["add"] = addForEver
	children["full"] = fillUnderLimit
	children["barred"] = openBarred
	children["hold"] = holdFile
}

// child is a command that runs children[name] on a path.
func child(name, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], path)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// unprivileged is a child that is bound by file permissions, which root is not. dir is made its own.
func unprivileged(t *testing.T, name, dir, path string) *exec.Cmd {
	t.Helper()
	cmd := child(name, path)
	if os.Geteuid() != 0 {
		return cmd
	}
	const nobody = 65534
	binary := filepath.Join(dir, "test")
	b, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(binary, b, 0o755))
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}))
	cmd.Path = binary
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

func fail(format string, args ...any) {
	fmt.Printf("failed: "+format+"\n", args...)
	os.Exit(1)
}

func wantFine(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.Output()
	if err != nil || !strings.HasSuffix(string(out), "fine\n") {
		t.Errorf("child: %v\n%s", err, out)
	}
}

// addForEver adds minutes, in no order and some of them twice, and prints what is on disk, until it is killed.
func addForEver(path string) {
	o := patient()
	o.MaxBytes = 1 << 30 // However fast the machine is, none of them gives way.
	h := Open(path, o)
	for n := 0; ; n++ {
		at := start.Add(time.Duration(time.Now().UnixNano()/1e5%2000) * time.Minute)
		if err := h.Add(at, append(busyRows(30, n), row("a", 1))); err != nil {
			fail("%v", err)
		}
		fmt.Println("added")
	}
}

// TestKillLosesOneMinuteAtMost kills a process that adds minutes, again and again: what was on disk stays there, in
// each resolution, and the file is whole.
func TestKillLosesOneMinuteAtMost(t *testing.T) {
	path := temp(t)
	added := uint64(0)
	const rounds = 20
	for round := range rounds {
		cmd := child("add", path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		armed := false
		for lines.Scan() {
			if lines.Text() != "added" {
				t.Errorf("child: %s", lines.Text())
			}
			added++
			if !armed { // Counted from the first one, so that each round has some.
				armed = true
				time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, func() { cmd.Process.Signal(syscall.SIGKILL) })
			}
		}
		cmd.Wait()
		if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("child ended: %v", cmd.ProcessState)
		}
		checkFile(t, path)
		h := Open(path, patient())
		must(t, h.Health())
		if st := h.Stats(); st.SetAside != nil || st.Damaged > 0 {
			t.Fatalf("round %d: stats %+v", round, st)
		}
		s := query(t, h, "a", start.AddDate(0, 0, -30), start.AddDate(0, 0, 10))
		got := canary(s)
		if got < added || got > added+1 {
			t.Fatalf("round %d: %d minutes on disk, %d were told, one may be more", round, got, added)
		}
		added = got
		wantSums(t, h, "a", got)
		must(t, h.Close())
	}
	if added < 2*rounds {
		t.Errorf("only %d minutes", added)
	}
	t.Logf("%d minutes", added)
}

// fillUnderLimit adds until the file may not grow, checks that everything goes on, and that it heals.
func fillUnderLimit(path string) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fail("%v", err)
	}
	all := limit
	for _, most := range []int{0, 5000, 20_000, 150_000} {
		set(&limit.Cur, most)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			fail("%v", err)
		}
		fill(fmt.Sprint(path, most), syscall.EFBIG, func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &all) })
	}
	fmt.Println("fine")
}

// set is an assignment to what is signed on some systems.
func set[N int64 | uint64](to *N, n int) {
	*to = N(n)
}

// fill is the test of a full disk, wherever it runs.
func fill(path string, want error, free func() error) {
	h := Open(path, patient())
	added, failed := 0, 0
	add := func() error {
		err := h.Add(minute(added), append(busyRows(50, added), row("a", 1)))
		added++
		return err
	}
	for failed < 50 {
		if err := add(); err != nil {
			failed++
			if !errors.Is(err, want) && !strings.Contains(err.Error(), want.Error()) { // bbolt does not wrap all.
				fail("add: %v", err)
			}
		} else if failed > 0 && added > 1000 {
			fail("never full")
		}
	}
	if st := h.Stats(); h.Health() == nil || st.Waiting == 0 || st.Lost > 0 || st.SetAside != nil {
		fail("health %v, %+v", h.Health(), st)
	}
	if s, _ := h.Query("a", start, minute(2000)); len(s.Points) < 50 {
		fail("%d points", len(s.Points))
	}
	if err := free(); err != nil {
		fail("%v", err)
	}
	if err := add(); err != nil {
		fail("when there is room again: %v", err)
	}
	s, err := h.Query("a", start, minute(2000))
	if err != nil || len(s.Points) != added || h.Stats().Waiting != 0 {
		fail("%v, %d points of %d", err, len(s.Points), added)
	}
	if err := h.Close(); err != nil {
		fail("%v", err)
	}
	again := Open(path, patient())
	if s, err := again.Query("a", start, minute(2000)); err != nil || len(s.Points) != added || again.Stats().Damaged > 0 {
		fail("again: %v, %d points of %d", err, len(s.Points), added)
	}
	if err := again.Close(); err != nil {
		fail("%v", err)
	}
}

func TestFileThatMayNotGrow(t *testing.T) {
	wantFine(t, child("full", temp(t)))
}

// openBarred opens a file that permissions keep it from, checks that everything goes on, and that it heals.
func openBarred(path string) {
	h := Open(path, patient())
	for n := range 3 {
		if err := h.Add(minute(10+n), []Row{row("a", 1)}); !errors.Is(err, fs.ErrPermission) {
			fail("add: %v", err)
		}
	}
	if s, err := h.Query("a", start, minute(100)); !errors.Is(err, fs.ErrPermission) || canary(s) != 3 {
		fail("query: %v, %d requests", err, canary(s))
	}
	for _, p := range []string{filepath.Dir(path), path} {
		if err := os.Chmod(p, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
			fail("%v", err)
		}
	}
	if err := h.Add(minute(13), []Row{row("a", 1)}); err != nil {
		fail("when it may: %v", err)
	}
	s, err := h.Query("a", start, minute(100))
	if err != nil {
		fail("%v", err)
	}
	if err := h.Close(); err != nil {
		fail("%v", err)
	}
	fmt.Println(canary(s), "requests")
	fmt.Println("fine")
}

func TestPermissionDenied(t *testing.T) {
	for _, c := range []struct {
		name      string
		file, dir os.FileMode // 0 for the file: none.
		want      string
	}{
		{"unreadable file", 0o200, 0o700, "5 requests"},
		{"read-only file", 0o400, 0o700, "5 requests"},
		{"read-only directory", 0, 0o500, "4 requests"},
		{"unreadable directory", 0o600, 0, "5 requests"},
	} {
		t.Run(c.name, func(t *testing.T) {
			top, err := os.MkdirTemp("", "history-test-") // t.TempDir is out of reach for others.
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(top) })
			must(t, os.Chmod(top, 0o711))
			dir := filepath.Join(top, "dir")
			must(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "history.db")
			if c.file != 0 {
				h := Open(path, patient())
				must(t, h.Add(minute(0), []Row{row("a", 1)}))
				must(t, h.Close())
				must(t, os.Chmod(path, c.file))
			}
			cmd := unprivileged(t, "barred", top, path)
			must(t, os.Chmod(dir, c.dir))
			out, err := cmd.Output()
			if err != nil || string(out) != c.want+"\nfine\n" {
				t.Errorf("child: %v\n%s\nwant %s", err, out, c.want)
			}
		})
	}
}

// holdFile opens a file, adds a minute, and lets go of it when its input ends.
func holdFile(path string) {
	h := Open(path, patient())
	if err := h.Add(minute(0), []Row{row("a", 1)}); err != nil {
		fail("%v", err)
	}
	fmt.Println("holds")
	io.Copy(io.Discard, os.Stdin)
	if err := h.Close(); err != nil {
		fail("%v", err)
	}
}

// TestFileOfAnotherProcess has a file in use elsewhere, which is not taken for damaged though it changes, and which is
// free once the other process has ended, in whatever way.
func TestFileOfAnotherProcess(t *testing.T) {
	for _, killed := range []bool{false, true} {
		path := temp(t)
		cmd := child("hold", path)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		bufio.NewReader(out).ReadString('\n')
		h := Open(path, patient())
		if err := h.Add(minute(1), []Row{row("a", 1)}); !errors.Is(err, ErrLocked) {
			t.Errorf("add: %v", err)
		}
		if killed {
			cmd.Process.Kill()
		}
		in.Close()
		cmd.Wait()
		must(t, h.Add(minute(2), []Row{row("a", 1)}))
		wantSums(t, h, "a", 3)
		if st := h.Stats(); st.SetAside != nil || st.Waiting > 0 {
			t.Errorf("stats %+v", st)
		}
		must(t, h.Close())
	}
}

func TestPipeInThePlaceOfTheFile(t *testing.T) {
	path := temp(t)
	must(t, syscall.Mkfifo(path, 0o600))
	h := Open(path, patient())
	defer h.Close()
	if err := h.Add(minute(0), nil); err == nil || !strings.Contains(err.Error(), "is no regular file (p---------)") {
		t.Errorf("add: %v", err)
	}
}
