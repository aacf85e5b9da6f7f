package tests

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const processCaddyfile = `{
	admin ADMIN
	auto_https off
	persist_config off
	grace_period 5s
	feature_flags {
		source file FEATURES {
			poll 100ms
		}
		state local STATE
	}
}
SITE {
` + twoWays + `}
`

const oneFlag = `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 2}}`

// failing is a canary that fails where it is asked to.
func failing(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Query().Has("fail") {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
	return false
}

func canaryProcess(t *testing.T, features string) *process {
	t.Helper()
	return newProcess(t, processCaddyfile, features, map[string]string{
		"NEW": host(upstream(t, "new", failing)), "OLD": host(upstream(t, "old", nil)),
	})
}

func (p *process) way(user string) string {
	p.t.Helper()
	r := fetch(p.t, p.site+"/", "X-User-ID", user)
	first, _, _ := strings.Cut(r.body, "\n")
	return first
}

func (p *process) trip() {
	p.t.Helper()
	for range 3 {
		if r := fetch(p.t, p.site+"/?fail", "X-User-ID", "alice"); r.status != http.StatusInternalServerError {
			p.t.Fatalf("a failing canary answered %d", r.status)
		}
	}
	if got := p.way("alice"); got != "old" {
		p.t.Fatalf("after the trip alice gets %q, want old", got)
	}
}

// A trip that anybody was told of is there after a power cut; the first request
// goes to the control.
func TestKillRightAfterTrip(t *testing.T) {
	for range 3 {
		p := canaryProcess(t, oneFlag)
		p.run()
		if got := p.way("alice"); got != "new" {
			t.Fatalf("alice gets %q, want new", got)
		}
		p.trip()
		eventually(t, 2*time.Second, "the trip is not told in the log", func() bool {
			return strings.Contains(p.log.String(), `"durable":true`)
		})
		p.kill()
		p.run()
		if got := p.way("alice"); got != "old" {
			t.Errorf("after kill -9 alice gets %q, want old", got)
		}
		if out, _, status := p.command("", "reset", "new_ui", "--address", p.admin, "--reason", "fixed"); status != 0 || !strings.Contains(out, "split") && !strings.Contains(out, "on") {
			t.Errorf("reset: status %d, %q", status, out)
		}
		p.kill()
		p.run()
		if got := p.way("alice"); got != "new" {
			t.Errorf("after a reset and kill -9 alice gets %q, want new", got)
		}
	}
}

// A state directory on which nothing can be written: everything goes on, and
// it is said.
func TestStateUnwritable(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	// A file in the directory's place cannot be written into by anybody, root
	// included.
	if err := os.WriteFile(filepath.Join(p.dir, "state"), []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.trip()
	if out := p.flags(); !strings.Contains(out, `"degraded":["state: `) {
		t.Errorf("the API does not say that state is degraded: %s", out)
	}
	if !strings.Contains(p.log.String(), "feature flags degraded") {
		t.Error("the log does not say that state is degraded")
	}
	// The disk is back: what waited in memory is written.
	if err := os.Remove(filepath.Join(p.dir, "state")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 40*time.Second, "state is not written although it could be", func() bool {
		return strings.Contains(p.flags(), `"degraded":[]`)
	})
	p.kill()
	p.run()
	if got := p.way("alice"); got != "old" {
		t.Errorf("the trip made while degraded is lost: alice gets %q", got)
	}
}

// A disk that is full, by the limit on file sizes that a shell can set.
func TestFullDisk(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	p.run("sh", "-c", `trap "" XFSZ; ulimit -f 0; exec "$0" "$@"`)
	p.trip()
	eventually(t, 10*time.Second, "the API does not say that state is degraded", func() bool {
		return strings.Contains(p.flags(), `"degraded":["state: `)
	})
	p.kill()
	p.run() // what was left half-written does not matter
	if got := p.way("alice"); got != "new" && got != "old" {
		t.Errorf("alice gets %q", got)
	}
}

func TestDamagedState(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"truncated":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":        func([]byte) []byte { return nil },
		"garbage":      func([]byte) []byte { return []byte(strings.Repeat("\x00\xff{\"", 5000)) },
		"first flip":   func(b []byte) []byte { b[3] ^= 0x40; return b },
		"garbage head": func(b []byte) []byte { return append([]byte("what is this\n"), b...) },
	}
	kept := map[string]bool{"garbage head": true}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			p := canaryProcess(t, oneFlag)
			p.run()
			p.trip()
			eventually(t, 2*time.Second, "the trip is not on disk", func() bool { return strings.Contains(p.log.String(), `"durable":true`) })
			p.kill()
			file := filepath.Join(p.dir, "state", "state.journal")
			text, err := os.ReadFile(file)
			if err != nil || len(text) == 0 {
				t.Fatalf("state.journal: %d bytes, %v", len(text), err)
			}
			if err := os.WriteFile(file, damage(text), 0o600); err != nil {
				t.Fatal(err)
			}
			p.run()
			got := p.way("alice")
			if kept[name] && got != "old" {
				t.Errorf("alice gets %q: the trip could be read and is lost", got)
			}
			aside, err := filepath.Glob(file + ".damaged*")
			if err != nil {
				t.Fatal(err)
			}
			if kept[name] || name == "garbage" {
				if len(aside) == 0 {
					t.Error("the damaged file was not set aside")
				}
				if !strings.Contains(p.log.String(), "set aside") {
					t.Error("the log does not say that state was damaged")
				}
			}
		})
	}
}

// Definitions that turn bad leave the last good ones in force; each kind of
// file, and each way of replacing it.
func TestFeaturesFileTurnsBad(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	p.run()
	bob := func(want, when string) {
		t.Helper()
		eventually(t, 5*time.Second, "bob does not get "+want+" "+when, func() bool { return p.way("bob") == want })
	}
	good := func(percent string) string {
		return `{"new_ui": {"active": true, "percentage_rollout": ` + percent + `}}`
	}
	file := filepath.Join(p.dir, "features.json")
	for name, text := range map[string]string{
		"empty":     "",
		"half":      `{"new_ui": {"active": true, "percen`,
		"mistake":   `{"new_ui": {"active": true, "percent_rollout": 100}}`,
		"no object": `[1, 2]`,
		"binary":    "\x00\x01\x02",
	} {
		p.write("features.json", text)
		eventually(t, 5*time.Second, "a "+name+" file is not said to be bad", func() bool {
			return strings.Contains(p.flags(), `"degraded":["definitions: `)
		})
		if got := p.way("alice"); got != "new" {
			t.Errorf("with a file that is %s alice gets %q, want what was in force", name, got)
		}
		p.write("features.json", oneFlag)
		eventually(t, 5*time.Second, "a mended file is not taken", func() bool { return strings.Contains(p.flags(), `"degraded":[]`) })
	}
	if !strings.Contains(p.log.String(), `did you mean \"percentage_rollout\"?`) {
		t.Error("the log does not name the field that was meant")
	}

	p.write("features.json", good("100"))
	bob("new", "after a rename")
	if err := os.WriteFile(file, []byte(good("0")), 0o600); err != nil {
		t.Fatal(err)
	}
	bob("old", "after a write in place")
	for name, text := range map[string]string{"a.json": good("100"), "b.json": good("0")} {
		p.write(name, text)
	}
	link := func(target string) {
		t.Helper()
		_ = os.Remove(file + ".link")
		if err := os.Symlink(target, file+".link"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".link", file); err != nil {
			t.Fatal(err)
		}
	}
	link("a.json")
	bob("new", "after a symlink took the file's place")
	link("b.json")
	bob("old", "after the symlink was changed")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "a file that is gone is not said to be", func() bool {
		return strings.Contains(p.flags(), `"degraded":["definitions: `)
	})
	bob("old", "while the file is gone")

	// Five megabytes of flags.
	var big strings.Builder
	big.WriteString(`{"new_ui": {"active": true, "percentage_rollout": 100}`)
	for i := 0; big.Len() < 5<<20; i++ {
		big.WriteString(`, "flag_` + strings.Repeat("x", 8) + itoa(i) + `": {"active": true, "regions": ["US", "CA", "RO"], "percentage_rollout": 12.5, "metadata": {"description": "` + strings.Repeat("d", 200) + `"}}`)
	}
	big.WriteString("}")
	p.write("features.json", big.String())
	eventually(t, 15*time.Second, "five megabytes are not taken", func() bool { return p.way("bob") == "new" })
}

func itoa(i int) string {
	if i == 0 {
		return "0"
	}
	var b []byte
	for ; i > 0; i /= 10 {
		b = append([]byte{byte('0' + i%10)}, b...)
	}
	return string(b)
}

// A bad file at start is refused with every mistake.
func TestBadFileAtStart(t *testing.T) {
	p := canaryProcess(t, "{\n  \"a\": {\"active\": \"yes\"},\n  \"b\": {\"active\": true, \"percentage_rollout\": 101, \"regons\": []}\n}\n")
	out, _, status := p.command("", "lint", "--flags", filepath.Join(p.dir, "features.json"))
	_ = out
	if status != 1 {
		t.Errorf("lint of a bad file: status %d, want 1", status)
	}
	cmd := newCaddy(p, "validate", "--config", p.file)
	text, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("a bad features file was accepted")
	}
	for _, want := range []string{`features.json:2:19: flag \"a\": active: want true or false`, `features.json:3:`, `percentage_rollout: want a number from 0 to 100, got 101`, `did you mean \"regions\"?`} {
		if !strings.Contains(string(text), want) && !strings.Contains(string(text), strings.ReplaceAll(want, `\"`, `"`)) {
			t.Errorf("the error does not say %s:\n%s", want, text)
		}
	}
}

// Checking a config, perhaps as another user than the one that will run it,
// leaves nothing behind; and it does not disturb the one that runs.
func TestValidateLeavesNoTrace(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	validate := func() {
		t.Helper()
		if text, err := newCaddy(p, "validate", "--config", p.file).CombinedOutput(); err != nil {
			t.Fatalf("validate: %v\n%s", err, text)
		}
	}
	validate()
	if _, err := os.Stat(filepath.Join(p.dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("validate made the state directory: %v", err)
	}
	p.run()
	p.trip()
	validate()
	if got := p.way("alice"); got != "old" {
		t.Errorf("after a validate beside it, alice gets %q, want old", got)
	}
}

// load asks in several connections until stop is called, which returns how many
// requests were made and how many failed.
func (p *process) load(connections int) (stop func() (made, failed int64)) {
	var made, failed, resets atomic.Int64
	var first atomic.Pointer[string]
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r, err := try(p.site+"/", "X-User-ID", "bob")
				for again := 0; again < 3 && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)); again++ {
					// Caddy opens a new socket with SO_REUSEPORT for each config;
					// connections that wait in the old one's queue when it closes
					// are reset by Linux (unless net.ipv4.tcp_migrate_req is 1),
					// before any of our code runs. Clients try again.
					resets.Add(1)
					time.Sleep(5 * time.Millisecond)
					r, err = try(p.site+"/", "X-User-ID", "bob")
				}
				made.Add(1)
				if err != nil || r.status != http.StatusOK {
					failed.Add(1)
					text := r.body
					if err != nil {
						text = err.Error()
					}
					first.CompareAndSwap(nil, &text)
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return func() (int64, int64) {
		close(done)
		wg.Wait()
		if s := first.Load(); s != nil {
			p.t.Logf("the first failure: %s", *s)
		}
		if n := resets.Load(); n > 0 {
			p.t.Logf("%d of %d connections were reset while the socket changed", n, made.Load())
			if n*100 > made.Load() {
				p.t.Errorf("%d of %d connections reset is more than a closing socket explains", n, made.Load())
			}
		}
		return made.Load(), failed.Load()
	}
}

// A hundred reloads and a hundred changes of the file, at load: no request is
// lost, and what was counted and tripped stays.
func TestReloadsAndChangesUnderLoad(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	p.run()
	p.trip()
	stop := p.load(4)
	config, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		p.write("features.json", `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": `+itoa(i%10)+`, "error_threshold": 2}}`)
		// Cache-Control: load although nothing has changed.
		if r := ask(t, http.MethodPost, "http://"+p.admin+"/load", string(config), "Content-Type", "text/caddyfile", "Cache-Control", "must-revalidate"); r.status != http.StatusOK {
			t.Fatalf("reload %d: status %d", i, r.status)
		}
	}
	made, failed := stop()
	if failed > 0 || made < 200 {
		t.Errorf("%d of %d requests failed over 100 reloads and 100 changes", failed, made)
	}
	if got := p.way("alice"); got != "old" {
		t.Errorf("the trip is gone after the reloads: alice gets %q", got)
	}
	if out := p.flags(); !strings.Contains(out, `"requests":`) || strings.Contains(out, `"control":{"requests":0`) {
		t.Errorf("the counts did not survive the reloads: %s", out)
	}
}
