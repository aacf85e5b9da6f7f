package tests

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func (c *instance) wayOf(user string) string {
	c.t.Helper()
	first, _, _ := strings.Cut(c.get("/", "X-User-ID", user).body, "\n")
	return first
}

// A config that does not come to run, wherever it fails, leaves the one that
// runs as it was: flags, thresholds, counts, state, and the stream.
func TestFailingConfigChangesNothing(t *testing.T) {
	c := start(t, canarySite, oneFlag, words(t))
	good := c.text
	c.get("/?fail", "X-User-ID", "alice") // one of the three that trip
	c.api("POST", "flags/new_ui/enable", "", 200)
	events := c.stream("")
	c.write("watches_nothing.json", `{"new_ui": {"active": true, "percentage_rollout": 100}, "added": {"active": true}}`)
	c.write("bad.json", `{"new_ui": {"active": "yes"}}`)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other := strings.Replace(good, "FEATURES", "DIR/watches_nothing.json", 1)
	elsewhere := strings.Replace(other, "STATE", "DIR/other_state", 1)
	for name, text := range map[string]string{
		"bad definitions":             strings.Replace(good, "FEATURES", "DIR/bad.json", 1),
		"definitions missing":         strings.Replace(good, "FEATURES", "DIR/none.json", 1),
		"fails in a handler":          other + "http://:0 {\n	bind 127.0.0.2\n	feature_flags {\n		jwt {\n			public_key DIR/none.pem\n		}\n	}\n	respond ok\n}\n",
		"fails to listen":             other + "http://" + taken.Addr().String() + " {\n	respond ok\n}\n",
		"fails with another state":    elsewhere + "http://" + taken.Addr().String() + " {\n	respond ok\n}\n",
		"bad with another state":      strings.Replace(elsewhere, "watches_nothing", "bad", 1),
		"an environment with no name": strings.Replace(good, "	feature_flags {", "	feature_flags {\n		environment {env.FEATURE_FLAGS_NOT_SET}", 1),
	} {
		c.text = text
		for range 4 { // Caddy starts its apps in any order
			if err := c.load(); err == nil {
				t.Fatalf("%s: the config was loaded", name)
			} else if strings.Contains(err.Error(), "panic") {
				t.Fatal(err)
			}
			if bob := c.wayOf("bob"); bob != "old" {
				t.Errorf("%s: bob gets %q", name, bob)
			}
			c.refused("GET", "/feature_flags/flags/added", "", http.StatusNotFound)
		}
	}
	c.text = good
	nothing(t, events)
	if got := c.api("GET", "flags/new_ui", "", 200); marshal(got["guard"].(map[string]any)["canary"]) != `{"errors":1,"requests":1}` {
		t.Errorf("the counts are %v", got["guard"])
	}
	for range 2 {
		if got := c.wayOf("alice"); got != "new" {
			t.Errorf("alice gets %q before the threshold is passed", got)
		}
		c.get("/?fail", "X-User-ID", "alice")
	}
	if got := c.wayOf("alice"); got != "old" {
		t.Errorf("after three failures alice gets %q: the thresholds of a config that failed are in force", got)
	}
	next(t, events, "tripped")
	// Its file is watched still, and the order of before is there.
	c.api("POST", "flags/new_ui/reset", "", 200)
	next(t, events, "reset")
	c.write("features.json", `{"new_ui": {"active": true}}`)
	next(t, events, "reloaded")
	nothing(t, events)
	if got := c.wayOf("bob"); got != "new" {
		t.Errorf("after a change of the file bob gets %q", got)
	}
}

// Orders, requests, scrapes, watchers and changes of the file while configs come
// and go: for the race detector, and for the last order to hold.
func TestEverythingAtOnce(t *testing.T) {
	c := start(t, canarySite, oneFlag, words(t))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	url := func() string { return c.admin + "/feature_flags/" }
	loop := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	var refused atomic.Int64
	quick := func(what string, f func() error) {
		before := time.Now()
		err := f()
		if took := time.Since(before); took > 5*time.Second {
			t.Errorf("%s took %s: %v", what, took, err)
		}
	}
	post := func(path, body string) {
		req, _ := http.NewRequest(http.MethodPost, url()+path, strings.NewReader(body))
		quick("the call "+path, func() error {
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return err // the admin endpoint is replaced at each reload
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				refused.Add(1)
			}
			return nil
		})
	}
	for k := range 2 {
		loop(func(i int) { post("flags/new_ui/"+[]string{"enable", "disable", "reset"}[(i+k)%3], `{"by": "race"}`) })
	}
	loop(func(int) { post("evaluate", `{"context": {"user_id": "alice"}}`) })
	loop(func(i int) {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 50 * time.Millisecond}).Get([]string{url() + "events", url() + "flags", c.admin + "/metrics", url() + "lint"}[i%4])
		if err == nil {
			resp.Body.Close()
		}
	})
	loop(func(i int) {
		c.write("features.json", strings.Replace(oneFlag, `"error_threshold": 2`, `"error_threshold": `+itoa(i%5), 1))
		time.Sleep(120 * time.Millisecond)
	})
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		quick("a reload", func() error {
			if err := c.load(); err != nil {
				t.Error(err)
			}
			return nil
		})
		for range 5 {
			quick("a request", func() error {
				_, err := try(c.url(0)+"/?fail", "X-User-ID", "alice")
				return err
			})
		}
	}
	close(stop)
	wg.Wait()
	if n := refused.Load(); n > 0 {
		t.Errorf("%d orders were refused", n)
	}
	c.write("features.json", oneFlag)
	eventually(t, 5*time.Second, "the last change is not in force", func() bool {
		return c.api("GET", "flags/new_ui", "", 200)["definition"].(map[string]any)["error_threshold"] == 2.0
	})
	c.api("POST", "flags/new_ui/reset", "", 200)
	if got := c.wayOf("alice"); got != "new" {
		t.Errorf("after a reset alice gets %q", got)
	}
	for range 3 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	if got := c.wayOf("alice"); got != "old" {
		t.Errorf("after a trip alice gets %q", got)
	}
}

// Nothing of a config stays behind: no goroutine of ours, and no copy of an app.
func TestReloadsLeaveNothing(t *testing.T) {
	c := start(t, canarySite, oneFlag, words(t))
	ours := func() (stacks []string) {
		buf := make([]byte, 4<<20)
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			for _, room := range []string{"/caddymodule.", "/state.", "/sources.", "/monitors."} {
				if strings.Contains(stack, "caddy-feature-flags"+room) {
					stacks = append(stacks, stack)
					break
				}
			}
		}
		return stacks
	}
	atMost := func(n int, when string) {
		t.Helper()
		var stacks []string
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if stacks = ours(); len(stacks) <= n {
				return
			}
		}
		t.Errorf("%d goroutines %s, want %d; one is\n%s", len(stacks), when, n, stacks[0])
	}
	const busy = 3 // the ticks, the store, and the look at the file
	for range 20 {
		c.stream("")
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		c.api("POST", "flags/new_ui/enable", "", 200)
	}
	atMost(busy, "after 20 reloads")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	atMost(0, "after the end")
}

// Two sites are one app: what is flipped is flipped in both.
func TestTwoSites(t *testing.T) {
	second := strings.TrimPrefix(strings.Replace(canarySite, "bind 127.0.0.1", "bind 127.0.0.2", 1), global)
	c := start(t, canarySite+second, oneFlag, words(t))
	both := func(want string) {
		t.Helper()
		for i := range 2 {
			if r := fetch(t, c.url(i)+"/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, want) {
				t.Errorf("site %d gives alice %q, want %q", i, r.body, want)
			}
		}
	}
	both("new")
	for i := range 3 { // counted together
		fetch(t, c.url(i%2)+"/?fail", "X-User-ID", "alice")
	}
	both("old")
	c.api("POST", "flags/new_ui/reset", "", 200)
	both("new")
	c.api("POST", "flags/new_ui/disable", "", 200)
	both("old")
}

// Without an admin endpoint and without a disk the kill switch works all the same.
func TestAdminOffAndStateInMemory(t *testing.T) {
	text := strings.Replace(strings.Replace(canarySite, "admin ADMIN", "admin off", 1), "state local STATE", "state memory", 1)
	c := start(t, text, oneFlag, words(t))
	for range 3 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	if got := c.wayOf("alice"); got != "old" {
		t.Errorf("after a trip alice gets %q", got)
	}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if got := c.wayOf("alice"); got != "old" {
		t.Errorf("after a trip and a reload alice gets %q", got)
	}
	if left, err := filepath.Glob(filepath.Join(c.dir, "state*")); err != nil || len(left) > 0 {
		t.Errorf("state memory has written %v, %v", left, err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if got := c.wayOf("alice"); got != "new" {
		t.Errorf("state memory outlived the process: alice gets %q", got)
	}
}

// Two Caddys and one directory: the second says so, sees what the first flips,
// works in memory, and takes over when the first is gone.
func TestStateDirectoryOfAnotherProcess(t *testing.T) {
	p := canaryProcess(t, oneFlag)
	p.run()
	text := strings.Replace(canarySite, "STATE", filepath.Join(p.dir, "state"), 1)
	c := start(t, text, oneFlag, words(t))
	if got := marshal(c.api("GET", "flags", "", 200)["degraded"]); !strings.Contains(got, "in use by another process (pid ") {
		t.Errorf("degraded: %s", got)
	}
	p.trip()
	eventually(t, 5*time.Second, "the other process' trip is not in force", func() bool { return c.wayOf("alice") == "old" })
	p.said(0, p.at("reset", "new_ui"), "new_ui: on")
	eventually(t, 5*time.Second, "the other process' reset is not in force", func() bool { return c.wayOf("alice") == "new" })
	for range 3 { // and the flag is watched again
		c.get("/?fail", "X-User-ID", "alice")
	}
	if got := c.wayOf("alice"); got != "old" {
		t.Errorf("after a trip alice gets %q", got)
	}
	p.kill()
	eventually(t, 10*time.Second, "the second does not take over", func() bool { return marshal(c.api("GET", "flags", "", 200)["degraded"]) == "[]" })
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	p.run()
	if got := p.way("alice"); got != "old" {
		t.Errorf("the trip of the second is lost when it has taken over: alice gets %q", got)
	}
}

// One bad source does not hold up another, and sources that fit together only
// both at once are taken when they do.
func TestSeveralSources(t *testing.T) {
	text := strings.Replace(canarySite, "		source file FEATURES {", "		source file DIR/second.json {\n			poll 100ms\n		}\n		source file FEATURES {", 1)
	dir := t.TempDir()
	text = strings.ReplaceAll(text, "DIR/second.json", filepath.Join(dir, "second.json"))
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "second.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"b": {"active": true}}`)
	c := start(t, text, `{"a": {"active": true}}`, words(t))
	status := func(flag, want string) {
		t.Helper()
		eventually(t, 3*time.Second, flag+" is not "+want, func() bool { return c.api("GET", "flags/"+flag, "", 200)["status"] == want })
	}
	degraded := func(texts ...string) {
		t.Helper()
		eventually(t, 3*time.Second, "degraded does not say "+strings.Join(texts, ", "), func() bool {
			got := marshal(c.api("GET", "flags", "", 200)["degraded"])
			for _, text := range texts {
				if !strings.Contains(got, text) {
					return false
				}
			}
			return len(texts) > 0 || got == "[]"
		})
	}
	write(`{"b": `)
	degraded("second.json")
	c.write("features.json", `{"a": {"active": false}}`)
	status("a", "inactive") // although the other source is bad
	degraded("second.json")
	status("b", "on")
	write(`{"b": {"active": false}}`)
	degraded()
	status("b", "inactive")

	// b needs a flag that the other source is yet to define.
	write(`{"b": {"active": true, "depends_on": ["c"]}}`)
	degraded("c")
	status("b", "inactive")
	c.write("features.json", `{"a": {"active": true}}`)
	status("a", "on") // what fits is taken
	degraded("c")
	status("b", "inactive")
	c.write("features.json", `{"a": {"active": true}, "c": {"active": true}}`)
	degraded()
	status("b", "on")
}
