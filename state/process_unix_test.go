//go:build unix

package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func init() {
	children["append"] = appendForEver
	children["full"] = fillUnderLimit
	children["barred"] = openBarred
	children["hold"] = holdDirectory
}

// child is a command that runs children[name] on a directory.
func child(name, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// unprivileged is a child that is bound by file permissions, which root is not. dir is made its own.
func unprivileged(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	cmd := child(name, dir)
	if os.Geteuid() != 0 {
		return cmd
	}
	const nobody = 65534
	open, err := os.MkdirTemp("", "state-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(open) })
	binary := filepath.Join(open, "test")
	if err := copyFile(os.Args[0], binary); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{open: 0o755, binary: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = binary
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// reachableDir is a temporary directory that an unprivileged child can get at.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "state-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// report prints for the parent, whole lines at a time.
var reportLock sync.Mutex

func report(format string, args ...any) {
	reportLock.Lock()
	defer reportLock.Unlock()
	fmt.Printf(format+"\n", args...)
}

// appendForEver records from several goroutines and prints what was acknowledged, until it is killed. It compacts often.
func appendForEver(dir string) {
	o := Options{Instance: "child", limits: defaultLimits}
	o.limits.outdated = 20
	s := Open(dir, o)
	for g := range 3 {
		go func() {
			for i := 0; ; i++ {
				tr, p := s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors", Evidence: fmt.Appendf(nil, `{"n":%d}`, i)})
				if p.Wait(context.Background()) == nil {
					report("trip %s", tr.ID)
				}
			}
		}()
		go func() {
			flag := fmt.Sprint("p", g)
			for {
				n := 1
				fmt.Sscan(string(s.Progress(flag).Data), &n)
				if s.SetProgress(time.Now(), flag, fmt.Append(nil, n+1)).Wait(context.Background()) == nil {
					report("progress %s %d", flag, n+1)
				}
			}
		}()
	}
	select {}
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	trips := map[string]bool{}
	progress := map[string]int{}
	compactions := 0
	for round := range 25 {
		cmd := child("append", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		kill := time.Duration(0)
		for lines.Scan() {
			if kill == 0 { // Counted from the first record, so that each round has some.
				kill = time.Duration(5+rand.IntN(60)) * time.Millisecond
				time.AfterFunc(kill, func() { cmd.Process.Signal(syscall.SIGKILL) })
			}
			var kind, name string
			var n int
			switch fmt.Sscan(lines.Text(), &kind, &name, &n); {
			case kind == "trip" && len(name) == 26:
				trips[name] = true
			case kind == "progress" && n > 0:
				progress[name] = max(progress[name], n)
			}
		}
		cmd.Wait()
		if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("child ended: %v", cmd.ProcessState)
		}
		if _, err := os.Stat(filepath.Join(dir, JournalName+".tmp")); err == nil {
			compactions++
		}

		s := Open(dir, quick())
		if h := s.Health(); h.Degraded || h.SetAside != nil {
			t.Fatalf("round %d: health %+v", round, h)
		}
		have := map[string]bool{}
		for _, tr := range s.Flag("a").Trips {
			have[tr.ID] = true
		}
		for id := range trips {
			if !have[id] {
				t.Fatalf("round %d: acknowledged trip %s is lost", round, id)
			}
		}
		for flag, want := range progress {
			var n int
			if fmt.Sscan(string(s.Progress(flag).Data), &n); n < want {
				t.Fatalf("round %d: progress of %s is %d, acknowledged %d", round, flag, n, want)
			}
		}
		mustClose(t, s)
	}
	if len(trips) < 100 {
		t.Errorf("only %d trips in all", len(trips))
	}
	t.Logf("%d acknowledged trips, progress up to %v, %d kills amid a compaction", len(trips), progress, compactions)
}

// fillUnderLimit records until a file may not grow, checks that everything goes on, and that it heals.
func fillUnderLimit(dir string) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fail(err)
	}
	all := limit
	limit.Cur = 20_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fail(err)
	}
	fill(dir, syscall.EFBIG, func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &all) })
	fmt.Println("fine")
}

// fill is the test of a full disk, wherever it runs.
func fill(dir string, want error, free func() error) {
	s := Open(dir, quick())
	var acknowledged, all []string
	for i := 0; ; i++ {
		tr, p := s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors", Evidence: []byte(`"` + strings.Repeat("x", 700) + `"`)})
		all = append(all, tr.ID)
		if err := p.Wait(context.Background()); err != nil {
			if !errors.Is(err, want) {
				fail(err)
			}
			break
		}
		acknowledged = append(acknowledged, tr.ID)
		if i > 10_000 {
			fail(errors.New("never full"))
		}
	}
	if h := s.Health(); !h.Degraded || h.Waiting == 0 || !errors.Is(h.Err, want) {
		fail(fmt.Errorf("health %+v", h))
	}
	for range 10 {
		tr, _ := s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors"})
		all = append(all, tr.ID)
	}
	if n := len(s.Flag("a").Trips); n != len(all) {
		fail(fmt.Errorf("%d trips in memory of %d", n, len(all)))
	}
	check := func(s *Store, want []string) {
		have := map[string]bool{}
		for _, tr := range s.Flag("a").Trips {
			have[tr.ID] = true
		}
		for _, id := range want {
			if !have[id] {
				fail(fmt.Errorf("%s is lost", id))
			}
		}
		if h := s.Health(); h.SetAside != nil {
			fail(fmt.Errorf("health %+v", h))
		}
	}
	// What a kill would leave now.
	copied, err := os.MkdirTemp("", "state-test-")
	if err != nil {
		fail(err)
	}
	defer os.RemoveAll(copied)
	if err := copyFile(s.path(JournalName), filepath.Join(copied, JournalName)); err != nil {
		fail(err)
	}
	left := Open(copied, quick())
	check(left, acknowledged)
	if err := left.Close(); err != nil {
		fail(err)
	}
	if err := free(); err != nil {
		fail(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if h := s.Health(); !h.Degraded && h.Waiting == 0 {
			break
		} else if time.Now().After(deadline) {
			fail(fmt.Errorf("health %+v", h))
		}
	}
	if err := s.Close(); err != nil {
		fail(err)
	}
	again := Open(dir, quick())
	check(again, all)
	if err := again.Close(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}

func wantFine(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.Output()
	if err != nil || !strings.HasSuffix(string(out), "fine\n") {
		t.Errorf("child: %v\n%s", err, out)
	}
}

func TestFilesThatMayNotGrow(t *testing.T) {
	wantFine(t, child("full", t.TempDir()))
}

// openBarred opens a directory whose journal cannot be read, or that cannot be written.
func openBarred(dir string) {
	s := Open(dir, quick())
	tr, p := s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors"})
	if err := p.Wait(context.Background()); !errors.Is(err, os.ErrPermission) {
		fail(fmt.Errorf("pending: %w", err))
	}
	h := s.Health()
	if !h.Degraded || !errors.Is(h.Err, os.ErrPermission) || h.SetAside != nil {
		fail(fmt.Errorf("health %+v", h))
	}
	known := len(s.Flag("a").Trips) - 1
	for _, path := range []string{dir, s.path(JournalName)} {
		if err := os.Chmod(path, 0o700); err != nil {
			fail(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); s.Health().Degraded; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			fail(fmt.Errorf("health %+v", s.Health()))
		}
	}
	if err := s.Close(); err != nil {
		fail(err)
	}
	again := Open(dir, quick())
	defer again.Close()
	trips := again.Flag("a").Trips
	if len(trips) != 2 || trips[1].ID != tr.ID {
		fail(fmt.Errorf("trips %v", trips))
	}
	fmt.Println(known, "known while barred")
	fmt.Println("fine")
}

func TestPermissionDenied(t *testing.T) {
	for _, c := range []struct {
		name      string
		file, dir os.FileMode
		known     string
	}{
		{"unreadable journal", 0, 0o700, "0 known"},
		{"read-only journal", 0o400, 0o700, "1 known"},
		{"read-only directory", 0o600, 0o500, "1 known"},
		{"unreadable directory", 0o600, 0, "0 known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(reachableDir(t), "state")
			s := Open(dir, quick())
			trip(t, s, "a")
			mustClose(t, s)
			cmd := unprivileged(t, "barred", dir)
			if err := os.Remove(s.path(LockName)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(s.path(JournalName), c.file); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, c.dir); err != nil {
				t.Fatal(err)
			}
			out, err := cmd.Output()
			if err != nil || string(out) != c.known+" while barred\nfine\n" {
				t.Fatalf("child: %v\n%s\nwant: %s", err, out, c.known)
			}
		})
	}
}

// holdDirectory opens a directory, records a trip, and another when its input ends, and closes it.
func holdDirectory(dir string) {
	s := Open(dir, Options{Instance: "first"})
	one, p := s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors"})
	if err := p.Wait(context.Background()); err != nil {
		fail(err)
	}
	fmt.Println(one.ID)
	bufio.NewReader(os.Stdin).ReadString(0)
	two, _ := s.Trip(time.Now(), TripInput{Flag: "a", Test: "errors"})
	s.SetProgress(time.Now(), "a", []byte("1"))
	if err := s.Close(); err != nil {
		fail(err)
	}
	fmt.Println(two.ID)
}

func TestSecondProcessWaitsForTheDirectory(t *testing.T) {
	dir := t.TempDir()
	cmd := child("hold", dir)
	in, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	out := bufio.NewScanner(stdout)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Scan()
	one := out.Text()

	s := Open(dir, quick())
	var told []Health
	var lock sync.Mutex
	defer s.OnHealth(func(h Health) {
		lock.Lock()
		defer lock.Unlock()
		told = append(told, h)
	})()
	h := s.Health()
	if !h.Degraded || !errors.Is(h.Err, ErrLocked) ||
		!strings.Contains(h.Err.Error(), fmt.Sprintf("in use by another process (pid %d on host ", cmd.Process.Pid)) ||
		!strings.HasSuffix(h.Err.Error(), ", instance first)") {
		t.Errorf("health %+v", h)
	}
	wantOpen(t, s, "a", one) // Read, though not owned.
	mine, p := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	if err := p.Wait(t.Context()); !errors.Is(err, ErrLocked) {
		t.Errorf("pending: %v", err)
	}
	wantOpen(t, s, "a", one, mine.ID)

	in.Close()
	out.Scan()
	two := out.Text()
	cmd.Wait()
	eventually(t, "taken over", func() bool { h := s.Health(); return !h.Degraded && h.Waiting == 0 })
	wantOpen(t, s, "a", one, two, mine.ID)
	if got := string(s.Progress("a").Data); got != "1" {
		t.Errorf("progress %q", got)
	}
	if n := len(s.Audit(AuditFilter{})); n != 3 {
		t.Errorf("%d audit entries", n)
	}
	mustClose(t, s)
	lock.Lock()
	if len(told) == 0 || told[len(told)-1].Degraded {
		t.Errorf("told %+v", told)
	}
	lock.Unlock()
	again := Open(dir, quick())
	defer again.Close()
	wantOpen(t, again, "a", one, two, mine.ID)
	if h := again.Health(); h.SetAside != nil {
		t.Errorf("health %+v", h)
	}
}

func TestSecondStoreOfOneProcessWaits(t *testing.T) {
	dir := t.TempDir()
	a := Open(dir, quick())
	b := Open(dir, quick())
	defer b.Close()
	if h := b.Health(); !errors.Is(h.Err, ErrLocked) {
		t.Errorf("health %+v", h)
	}
	mustClose(t, a)
	eventually(t, "taken over", func() bool {
		b.Note(start, AuditEntry{Action: "step"}) // New records do not put the attempt off.
		return !b.Health().Degraded
	})
}

func TestFIFOInThePlaceOfTheJournal(t *testing.T) {
	testInThePlace(t, func(path string) error { return syscall.Mkfifo(path, 0o600) })
}

func TestFIFOInThePlaceOfTheLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, LockName)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := Open(dir, quick())
	defer s.Close()
	if h := s.Health(); !h.Degraded || !strings.Contains(h.Err.Error(), "is a named pipe, want a regular file") {
		t.Errorf("health %+v", h)
	}
	os.Remove(path)
	eventually(t, "healthy", func() bool { return !s.Health().Degraded })
	trip(t, s, "a")
}
