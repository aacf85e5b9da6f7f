// Package tests runs the product end to end: a real Caddy, real upstreams, real
// tokens, real files.
package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/seed-6adbc061/caddy-feature-flags"
)

// goCaches are the go command's folders, found before the home folder moves.
var goCaches []string

// caddyLog takes what Caddy logs where a test's Caddyfile says nothing of logs:
// thousands of lines, among which nobody would find a test that failed.
var caddyLog *os.File

// TestMain keeps Caddy out of the home folder, and its log out of the tests'.
func TestMain(m *testing.M) {
	for _, name := range []string{"GOCACHE", "GOPATH", "GOMODCACHE", "GOENV"} {
		if out, err := exec.Command("go", "env", name).Output(); err == nil {
			goCaches = append(goCaches, name+"="+strings.TrimSpace(string(out)))
		}
	}
	dir, err := os.MkdirTemp("", "caddy-feature-flags-*")
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	if caddyLog, err = os.Create(filepath.Join(dir, "caddy.log")); err != nil {
		panic(err)
	}
	os.Stderr = caddyLog
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// instance is the one Caddy that runs in this process.
type instance struct {
	t     *testing.T
	dir   string            // of features.json, state and whatever a test writes
	admin string            // http://host:port of the admin API
	words map[string]string // what the Caddyfile's words in capitals stand for
	text  string            // the Caddyfile
}

// start runs the Caddyfile until the test ends. In it FEATURES is the features
// file, DIR the test's folder, STATE the state's folder, ADMIN the admin
// address, and each further word what words gives. Sites are written
// `http://:0 { bind 127.0.0.1`, and found by [instance.url] in their order.
func start(t *testing.T, caddyfile, features string, words map[string]string) *instance {
	t.Helper()
	c := &instance{t: t, dir: t.TempDir(), text: caddyfile, words: map[string]string{}}
	address := freeAddress(t)
	c.admin = "http://" + address
	for k, v := range words {
		c.words[k] = v
	}
	c.words["ADMIN"] = address
	c.words["DIR"] = c.dir
	c.words["STATE"] = filepath.Join(c.dir, "state")
	c.words["FEATURES"] = filepath.Join(c.dir, "features.json")
	if features != "" {
		c.write("features.json", features)
	}
	showLogOfFailed(t)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
	})
	return c
}

// showLogOfFailed shows the end of what Caddy logs from here on, if the test fails.
func showLogOfFailed(t *testing.T) {
	from, err := caddyLog.Seek(0, io.SeekCurrent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		text, err := os.ReadFile(caddyLog.Name())
		if err != nil || len(text) <= int(from) {
			return
		}
		lines := strings.Split(strings.TrimSpace(string(text[from:])), "\n")
		for i, line := range lines {
			lines[i] = fmt.Sprintf("%.400s", line)
		}
		t.Logf("Caddy's log ends with\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	})
}

// global is the usual head of a Caddyfile.
const global = `{
	admin ADMIN
	auto_https off
	persist_config off
	grace_period 2s
	feature_flags {
		source file FEATURES {
			poll 100ms
		}
		state local STATE
	}
}
`

// twoWays is the inside of a site that goes to NEW while new_ui is on and to OLD
// while it is off; who asks is in a header.
const twoWays = `	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	feature_route new_ui {
		on {
			reverse_proxy NEW
		}
		off {
			reverse_proxy OLD
		}
	}
`

// load (re)loads the Caddyfile.
func (c *instance) load() error {
	text := c.text
	for k, v := range c.words {
		text = strings.ReplaceAll(text, k, v)
	}
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, _, err := adapter.Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return fmt.Errorf("adapting: %w", err)
	}
	return caddy.Load(config, true)
}

// write replaces a file of the test's folder as an editor does: by rename.
func (c *instance) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		c.t.Fatal(err)
	}
}

// url returns the address of the i-th site.
func (c *instance) url(i int) string {
	c.t.Helper()
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		c.t.Fatal(err)
	}
	servers := app.(*caddyhttp.App).Servers
	s := servers[fmt.Sprintf("srv%d", i)]
	if s == nil || len(s.Listeners()) == 0 {
		c.t.Fatalf("site %d does not listen; there are %d servers", i, len(servers))
	}
	return "http://" + s.Listeners()[0].Addr().String()
}

// api calls the admin API and decodes its answer; it fails the test unless the
// status is the one wanted.
func (c *instance) api(method, path, body string, want int) map[string]any {
	c.t.Helper()
	r := c.call(method, "/feature_flags/"+path, body)
	if r.status != want {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, r.status, want, r.body)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		c.t.Fatalf("%s %s: %v: %s", method, path, err, r.body)
	}
	return out
}

// call asks the admin endpoint.
func (c *instance) call(method, path, body string) reply {
	c.t.Helper()
	return ask(c.t, method, c.admin+path, body)
}

// ask asks an admin endpoint, by a connection of its own: a reload replaces the
// endpoint and closes those that idle, just when a call may be made by one. A
// connection that the old one has not taken up by then is lost: such a call is made
// again.
func ask(t *testing.T, method, url, body string, headers ...string) reply {
	t.Helper()
	for again := true; ; again = false {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		req.Close = true
		resp, err := client.Do(req)
		if again && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply{resp.StatusCode, resp.Header, string(text)}
	}
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

// get asks the first site; headers are given as name, value, ….
func (c *instance) get(path string, headers ...string) reply {
	c.t.Helper()
	return fetch(c.t, c.url(0)+path, headers...)
}

func fetch(t *testing.T, url string, headers ...string) reply {
	t.Helper()
	r, err := try(url, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// try is fetch where failing is an outcome.
func try(url string, headers ...string) (reply, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body)}, err
}

// client follows no redirects and keeps no cookies.
var client = &http.Client{
	Timeout:       20 * time.Second,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// upstream is a real server that says its name and shows the flags it was told.
func upstream(t *testing.T, name string, handle func(w http.ResponseWriter, r *http.Request) bool) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handle != nil && handle(w, r) {
			return
		}
		var b bytes.Buffer
		fmt.Fprintln(&b, name)
		for _, k := range []string{"X-Feature-New-Ui", "X-Feature-Checkout-V2", "X-Features"} {
			if v := r.Header.Values(k); v != nil {
				fmt.Fprintf(&b, "%s: %s\n", k, strings.Join(v, " | "))
			}
		}
		_, _ = w.Write(b.Bytes())
	}))
	t.Cleanup(s.Close)
	return s
}

// host gives a server's host:port.
func host(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

// nextPort is the next that [freeAddress] tries; processes that test at the same
// time begin at different ones.
var nextPort atomic.Uint32

func init() { nextPort.Store(uint32(os.Getpid()) * 97) }

// freeAddress is one where nothing listens and nothing will before the test does:
// its port is below those that the system gives to connections and to port 0.
func freeAddress(t *testing.T) string {
	t.Helper()
	var err error
	for range 1000 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10000+nextPort.Add(1)%20000)); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

// eventually waits until ok, and fails after the limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %s", limit, what)
		}
	}
}
