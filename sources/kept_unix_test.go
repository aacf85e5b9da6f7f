//go:build unix

package sources

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	asChild("save", saveForEver)
	asChild("die", saveAndDie)
	asChild("full", saveUnderLimit)
}

// keptVersion is the text of a version, large enough for a kill amid its writing.
func keptVersion(who string, n int) string {
	return fmt.Sprintf("%s %d\n", who, n) + strings.Repeat("0123456789abcdef", 1<<17)
}

// saveForEver saves one version after the other and prints which of them are.
func saveForEver(arg string) {
	path, who, _ := strings.Cut(arg, "|")
	k := &Kept{Path: path}
	for n := 1; ; n++ {
		if err := k.Save(keptDocument(keptVersion(who, n))); err != nil {
			fmt.Println("failed:", err)
			return
		}
		fmt.Println(who, n)
	}
}

// saveAndDie kills itself before a step.
func saveAndDie(arg string) {
	path, number, _ := strings.Cut(arg, "|")
	var step keptStep
	fmt.Sscan(number, &step)
	k := &Kept{Path: path, step: func(s keptStep) error {
		if s == step {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}}
	fmt.Println("failed:", k.Save(keptDocument("two")))
}

// saveUnderLimit saves what is larger than a file may become.
func saveUnderLimit(path string) {
	limit := syscall.Rlimit{Cur: 20_000, Max: 20_000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Println("failed:", err)
		return
	}
	if err := (&Kept{Path: path}).Save(keptDocument(keptVersion("a", 2))); !errors.Is(err, syscall.EFBIG) || strings.Contains(err.Error(), keptTemporary) {
		fmt.Println("failed:", err)
		return
	}
	fmt.Println("fine")
}

// TestKeptKilledBeforeEachStep: the copy is the earlier one or the new one, and the next one who comes clears up.
func TestKeptKilledBeforeEachStep(t *testing.T) {
	for step := keptCreate; step <= keptSyncDir; step++ {
		k := newKept(t)
		must(t, k.Save(keptDocument("one")))
		cmd := child("die", fmt.Sprint(k.Path, "|", int(step)))
		out, _ := cmd.Output()
		if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("child: %v\n%s", cmd.ProcessState, out)
		}
		left, want := 1, "one"
		if step > keptCreate && step <= keptRename {
			left = 2
		}
		if step > keptRename {
			want = "two"
		}
		wantFiles(t, k, left)
		wantKept(t, k, want)
		must(t, k.Save(keptDocument("two")))
		wantKept(t, k, "two")
	}
}

// TestKeptKilledAtAnyTime kills who saves one version after the other: what was acknowledged last is there, or a later one.
func TestKeptKilledAtAnyTime(t *testing.T) {
	k := newKept(t)
	amid := 0
	for round := 0; round < 10 || (amid == 0 && round < 100); round++ {
		acknowledged := 0
		cmd := child("save", k.Path+"|a")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if acknowledged == 0 { // Counted from the first one, so that each round has some.
				time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { cmd.Process.Signal(syscall.SIGKILL) })
			}
			if _, err := fmt.Sscanf(lines.Text(), "a %d", &acknowledged); err != nil {
				t.Fatal(lines.Text())
			}
		}
		cmd.Wait()
		if left, _ := filepath.Glob(k.Path + keptTemporary + "*"); len(left) > 0 {
			amid++
		}
		doc, err := k.Load()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var n int
		if _, err := fmt.Sscanf(string(doc.Body[:min(30, len(doc.Body))]), "a %d\n", &n); err != nil || n < acknowledged || string(doc.Body) != keptVersion("a", n) {
			t.Fatalf("round %d: %d acknowledged, have %.30q", round, acknowledged, doc.Body)
		}
		wantFiles(t, k, 1)
	}
	if amid == 0 {
		t.Error("no kill came amid a write")
	}
}

// TestKeptByTwoProcesses has two that save at once, one of them killed.
func TestKeptByTwoProcesses(t *testing.T) {
	k := newKept(t)
	cmd := child("save", k.Path+"|b")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the child said nothing")
	}
	for n := range 20 {
		must(t, k.Save(keptDocument(keptVersion("a", n))))
		doc, err := k.Load()
		if err != nil {
			t.Fatal(err)
		}
		var who string
		var of int
		fmt.Sscanf(string(doc.Body[:min(30, len(doc.Body))]), "%s %d\n", &who, &of)
		if string(doc.Body) != keptVersion(who, of) {
			t.Fatalf("have %.30q", doc.Body)
		}
	}
	cmd.Process.Signal(syscall.SIGKILL)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "failed") {
			t.Error(lines.Text())
		}
	}
	cmd.Wait()
	must(t, k.Save(keptDocument("last")))
	wantKept(t, k, "last")
}

func TestKeptOnAFullDisk(t *testing.T) {
	k := newKept(t)
	must(t, k.Save(keptDocument("one")))
	out, err := child("full", k.Path).Output()
	if err != nil || string(out) != "fine\n" {
		t.Errorf("child: %v\n%s", err, out)
	}
	wantKept(t, k, "one")
}

func TestKeptInThePlaceOfAPipe(t *testing.T) {
	k := newKept(t)
	must(t, syscall.Mkfifo(k.Path, 0o600))
	must(t, syscall.Mkfifo(k.Path+keptTemporary+"1", 0o600))
	if _, err := k.Load(); err == nil || err.Error() != fmt.Sprintf("reading the copy %q: is a named pipe, want a regular file", k.Path) {
		t.Errorf("got %v", err)
	}
}
