//go:build unix

package webhook

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func init() {
	children["send"] = sendForEver
	children["full"] = fillUnderLimit
}

// child is a command that runs children[name] with args.
func child(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

func fail(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}

// roomy options drop nothing.
var roomy = Options{MaxQueued: 1 << 20, MaxBytes: 1 << 30}

// sendForEver sends events to a peer and prints their ids once they are durable, until it is killed.
func sendForEver(args []string) {
	path, url := args[0], args[1]
	s := Open(path, roomy)
	if err := s.Configure([]Target{{Name: "a", URL: url}}); err != nil {
		fail(err)
	}
	for round := 0; ; round++ {
		var ids []string
		for i := range 1 + round%5 {
			id := fmt.Sprintf("%d-%d-%d", os.Getpid(), round, i)
			ids = append(ids, id)
			s.Send(Event{ID: id, Type: Tripped, Data: []byte(`"` + strings.Repeat("x", rand.IntN(20_000)) + `"`)})
		}
		if err := s.Drain(context.Background()); err != nil {
			fail(err)
		}
		fmt.Println(strings.Join(ids, " "))
	}
}

// TestKillLosesNothingDurable kills a sender again and again, at any moment: what was durable, or delivered, arrives in the
// end under the id that it was sent with.
func TestKillLosesNothingDurable(t *testing.T) {
	t.Parallel()
	path := queueFile(t)
	var accepted sync.Map
	var all atomic.Bool
	r := listen(t, func(n int, h heard) (int, http.Header, string) {
		if n%3 == 0 && !all.Load() {
			return 503, nil, "" // So that much waits when it is killed.
		}
		accepted.Store(h.id, nil)
		return 200, nil, ""
	})
	durable := map[string]bool{}
	for range 12 {
		cmd := child("send", path, r.URL)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := (*time.Timer)(nil)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "failed") {
				t.Fatal(lines.Text())
			}
			if timer == nil { // Counted from the first one, so that each round has some.
				timer = time.AfterFunc(time.Duration(rand.IntN(100_000))*time.Microsecond, func() { cmd.Process.Kill() })
			}
			for id := range strings.FieldsSeq(lines.Text()) {
				durable[id] = true
			}
		}
		cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("child ended: %v", cmd.ProcessState)
		}
		inFile(t, path) // Sound.
	}
	all.Store(true)
	s := open(t, path, roomy, Target{Name: "a", URL: r.URL})
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
	left := s.Queued()
	eventually(t, "all delivered", func() bool { return s.Queued() == 0 })
	for id := range durable {
		if _, ok := accepted.Load(id); !ok {
			t.Errorf("%s is lost", id)
		}
	}
	if names, _ := filepath.Glob(path + ".*"); len(names) != 0 {
		t.Errorf("set aside or left: %q", names)
	}
	if len(durable) < 24 {
		t.Errorf("only %d durable events", len(durable))
	}
	if left < len(durable)/4 {
		t.Errorf("only %d of %d durable events were left to the last process", left, len(durable))
	}
	t.Logf("%d durable events, %d left to the last process, %d requests", len(durable), left, len(r.got()))
}

// fillUnderLimit sends until a file may not grow, and heals.
func fillUnderLimit(args []string) {
	path := args[0]
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fail(err)
	}
	all := limit
	limit.Cur = 100_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fail(err)
	}
	fill(path, func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &all) })
}

// fill is the test of a full disk, wherever it runs.
func fill(path string, free func() error) {
	s := Open(path, Options{Transport: &peer{answer: func(int, *http.Request) (*http.Response, error) { return nil, errRefused }}})
	if err := s.Configure([]Target{far("a")}); err != nil {
		fail(err)
	}
	sent := 0
	for s.Health() == nil {
		s.Send(Event{ID: fmt.Sprintf("e%d", sent), Type: Tripped, Data: []byte(`"` + strings.Repeat("x", 5000) + `"`)})
		sent++
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		_ = s.Drain(ctx)
		cancel()
		if sent > 500 {
			fail(fmt.Errorf("never full"))
		}
	}
	if s.Queued() != sent {
		fail(fmt.Errorf("%d of %d wait", s.Queued(), sent))
	}
	if err := free(); err != nil {
		fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		fail(err)
	}
	if err := s.Close(); err != nil {
		fail(err)
	}
	found, err := checkFile(path, 64<<20)
	if err != nil || len(found) != sent {
		fail(fmt.Errorf("%d of %d in the file, %w", len(found), sent, err))
	}
	if names, _ := filepath.Glob(path + ".*"); len(names) != 0 {
		fail(fmt.Errorf("set aside or left: %q", names))
	}
	fmt.Println("fine")
}

// TestFileThatMayNotGrow has the disk full in the midst of it, and from the beginning.
func TestFileThatMayNotGrow(t *testing.T) {
	t.Parallel()
	out, err := child("full", queueFile(t)).Output()
	if err != nil || string(out) != "fine\n" {
		t.Errorf("child: %v\n%s", err, out)
	}
}
