package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// remote serves definitions as a test has it answer.
type remote struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	asked  atomic.Int64
	same   atomic.Int64 // answers 304
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	rm := &remote{}
	rm.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rm.asked.Add(1)
		rm.mu.Lock()
		answer := rm.answer
		rm.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(rm.Close)
	return rm
}

func (rm *remote) does(answer func(w http.ResponseWriter, r *http.Request)) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.answer = answer
}

// says has it answer with a text and its tag, to whoever knows the password.
func (rm *remote) says(text string) {
	tag := fmt.Sprintf(`"%x"`, len(text))
	rm.does(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer open sesame" || r.URL.Query().Get("token") != "hidden-token":
			http.Error(w, "who are you?", http.StatusForbidden)
		case r.Header.Get("If-None-Match") == tag:
			rm.same.Add(1)
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("ETag", tag)
			fmt.Fprint(w, text)
		}
	})
}

func (rm *remote) fails(status int) {
	rm.does(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "sorry", status) })
}

const remoteSite = `{
	admin ADMIN
	auto_https off
	persist_config off
	grace_period 2s
	log {
		output file DIR/caddy.log
		format json
	}
	feature_flags {
		source file FEATURES {
			poll 100ms
		}
		source http REMOTE/flags.json?token=hidden-token {
			poll 1s
			header Authorization "Bearer open sesame"
			timeout 2s
			OPTIONAL
		}
		state local STATE
	}
}
http://:0 {
	bind 127.0.0.1
	feature_flags
	reverse_proxy APP
}
`

func remoteWords(t *testing.T, rm *remote) map[string]string {
	return map[string]string{"REMOTE": rm.URL, "OPTIONAL": "", "APP": host(echo(t, "app"))}
}

// on tells whether the application is told that a flag is on.
func (c *instance) on(flag string) bool {
	c.t.Helper()
	return c.get("/").echoed(c.t).Header.Get("X-Feature-"+flag) == "on"
}

const (
	localFlags  = `{"new_ui": {"active": true}, "local": {"active": true}}`
	remoteFlags = `{"new_ui": {"active": false}, "remote": {"active": true}}`
)

func TestRemoteSource(t *testing.T) {
	rm := newRemote(t)
	rm.says(remoteFlags)
	c := start(t, remoteSite, localFlags, remoteWords(t, rm))
	if c.on("New-Ui") || !c.on("Local") || !c.on("Remote") {
		t.Error("the sources are not merged in order")
	}
	// A flag in two sources is told once, also over reloads of one and of the config.
	shadowed := func() int { return strings.Count(c.file("caddy.log"), "a flag is defined in several sources") }
	eventually(t, 3*time.Second, "nobody is told of the flag in two sources", func() bool { return shadowed() == 1 })
	if line := c.file("caddy.log"); !strings.Contains(line, `"earlier":"`+c.words["FEATURES"]) || !strings.Contains(line, `"later":"`+rm.URL+`/flags.json?…"`) {
		t.Errorf("%s", line)
	}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}

	// It asks by the tag it has, and takes what is new.
	eventually(t, 5*time.Second, "the tag is not sent", func() bool { return rm.same.Load() > 0 })
	rm.says(`{"new_ui": {"active": true}, "remote": {"active": true}}`)
	eventually(t, 5*time.Second, "the new definitions are not in force", func() bool { return c.on("New-Ui") })
	c.write("features.json", `{"local": {"active": false}, "new_ui": {"active": false}}`)
	eventually(t, 3*time.Second, "the local file is not taken any more", func() bool { return !c.on("Local") && c.on("New-Ui") })
	if n := shadowed(); n != 1 {
		t.Errorf("told of the flag in two sources %d times", n)
	}

	// Gone, slow and lying: what it said last stays, and is told once.
	broken := func(name string, answer func(w http.ResponseWriter, r *http.Request), words string) {
		t.Helper()
		rm.does(answer)
		eventually(t, 8*time.Second, name+" is not noticed", func() bool {
			degraded := fmt.Sprint(c.api("GET", "flags", "", 200)["degraded"])
			return strings.Contains(degraded, rm.URL+"/flags.json?…") && strings.Contains(degraded, words)
		})
		if !c.on("New-Ui") || !c.on("Remote") {
			t.Errorf("%s: the flags are lost", name)
		}
	}
	broken("an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "out of order", 500) }, "answered 500 Internal Server Error")
	broken("a page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<!doctype html><title>Log in</title>") }, "want JSON or YAML")
	broken("a mistake", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{\n \"remote\": {\"activ\": true}}") }, `flags.json?…:2:13: flag "remote": unknown field "activ" (did you mean "active"?)`)
	broken("half a document", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"remote": {"active": true`) }, "not JSON")
	broken("too slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "did not answer within 2s")
	broken("an empty body", func(http.ResponseWriter, *http.Request) {}, "empty body")
	rm.says(remoteFlags)
	eventually(t, 8*time.Second, "it is not taken when it is well again", func() bool {
		return !c.on("New-Ui") && len(c.api("GET", "flags", "", 200)["degraded"].([]any)) == 0
	})
	for where, text := range map[string]string{"log": c.file("caddy.log"), "API": c.call("GET", "/feature_flags/flags", "").body} {
		for _, secret := range []string{"hidden-token", "open sesame"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in the %s", secret, where)
			}
		}
	}
}

// Without the remote a start has the last good copy, also in another process; without
// a copy it is refused, or has no flags where the source is optional.
func TestRemoteSourceIsDownAtStart(t *testing.T) {
	rm := newRemote(t)
	rm.says(remoteFlags)
	text := strings.ReplaceAll(remoteSite, "http://:0 {\n	bind 127.0.0.1", "SITE {")
	words := remoteWords(t, rm)
	words["DIR"] = t.TempDir()
	p := newProcess(t, text, localFlags, words)
	p.run()
	asked := func(flag string) string {
		t.Helper()
		r, err := try(p.site + "/")
		if err != nil {
			t.Fatal(err)
		}
		return r.echoed(t).Header.Get("X-Feature-" + flag)
	}
	if asked("Remote") != "on" {
		t.Fatal("the remote's flag is not on")
	}
	eventually(t, 5*time.Second, "there is no copy", func() bool {
		files, _ := filepath.Glob(filepath.Join(p.dir, "state", "sources", "*.kept"))
		return len(files) == 1
	})
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"gone":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"slow":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"lying": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"remote": {"active": "no"}}`) },
	} {
		rm.does(answer)
		p.kill()
		p.run()
		if asked("Remote") != "on" || asked("Local") != "on" {
			t.Errorf("%s: the copy is not in force", name)
		}
		if r, err := try("http://" + p.admin + "/feature_flags/flags"); err != nil || !strings.Contains(r.body, rm.URL) {
			t.Errorf("%s: it is not told: %v %s", name, err, r.body)
		}
	}
	rm.says(`{"remote": {"active": false}}`)
	eventually(t, 8*time.Second, "it is not taken when it is well again", func() bool { return asked("Remote") == "off" })
	p.kill()

	// Nothing to go by.
	if err := os.RemoveAll(filepath.Join(p.dir, "state", "sources")); err != nil {
		t.Fatal(err)
	}
	rm.fails(503)
	validate := exec.Command(p.path, "validate", "--config", p.file)
	validate.Env = append(os.Environ(), "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	out, err := validate.CombinedOutput()
	logged, _ := os.ReadFile(filepath.Join(words["DIR"], "caddy.log"))
	if text := string(out) + string(logged); err == nil || !strings.Contains(text, "answered 503 Service Unavailable") || strings.Contains(text, "hidden-token") {
		t.Errorf("without a copy: %v\n%s", err, text)
	}
	config, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	p.write("Caddyfile", strings.Replace(string(config), "timeout 2s", "timeout 2s\n\t\t\toptional", 1))
	p.run()
	if asked("Remote") != "" || asked("Local") != "on" {
		t.Error("an optional source")
	}
	p.kill()
	rm.does(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"remote": {"active": "no"}}`) })
	p.run()
	if asked("Remote") != "" || asked("Local") != "on" {
		t.Error("an optional source that says what are no definitions")
	}
	rm.says(remoteFlags)
	eventually(t, 8*time.Second, "the optional source is not taken when it is there", func() bool { return asked("Remote") == "on" })
}

// A reload of the config while the remote is down goes on with what it said, also
// without any disk.
func TestRemoteSourceIsDownAtReload(t *testing.T) {
	rm := newRemote(t)
	rm.says(remoteFlags)
	c := start(t, strings.Replace(remoteSite, "state local STATE", "state memory", 1), localFlags, remoteWords(t, rm))
	rm.fails(500)
	c.text = strings.Replace(c.text, "timeout 2s", "timeout 3s", 1)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if !c.on("Remote") {
		t.Error("the reload has lost the flags")
	}
	rm.says(`{"new_ui": {"active": true}, "remote": {"active": true}}`)
	eventually(t, 8*time.Second, "it is not taken when it is well again", func() bool { return c.on("New-Ui") })
}
