// Package browser tests what people and their pages see: a real browser, the
// OpenFeature project's own client, and Caddy as users build it. It is a module
// of its own, so that what it needs never reaches a user's build.
package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
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

// caddyPath is the program under test, built once.
var caddyPath string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	for _, needed := range []string{"node_modules/@openfeature/ofrep-web-provider", "node_modules/axe-core/axe.min.js"} {
		if _, err := os.Stat(needed); err != nil {
			fmt.Fprintf(os.Stderr, "tests/browser/%s is missing: run `make browser`, which installs it\n", needed)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "feature-flags-browser-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	caddyPath = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", caddyPath, "./cmd/caddy")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building Caddy: %v\n%s", err, out)
		return 1
	}
	defer closeChrome()
	return m.Run()
}

// server is a Caddy at work.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *lockedBuffer
	dir   string
	admin string // http://host:port
	site  string // http://host:port
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// head is the head of the Caddyfile.
const head = `{
	admin ADMIN
	auto_https off
	persist_config off
	grace_period 2s
	feature_flags {
		source file features.json {
			poll 100ms
		}
		state local DIR/state
	}
}
`

// serve runs Caddy until the test ends. In the Caddyfile SITE, ADMIN and DIR stand
// for what the server has them for, NPM for node_modules, PAGE for testdata/page, and
// each word for what words gives.
func serve(t *testing.T, caddyfile, features string, words map[string]string) *server {
	t.Helper()
	s := &server{t: t, log: &lockedBuffer{}, dir: t.TempDir(), admin: "http://" + freeAddress(t), site: "http://" + freeAddress(t)}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	text := head + caddyfile
	for k, v := range words {
		text = strings.ReplaceAll(text, k, v)
	}
	text = strings.NewReplacer("SITE", s.site, "ADMIN", strings.TrimPrefix(s.admin, "http://"), "DIR", s.dir,
		"NPM", filepath.Join(here, "node_modules"), "PAGE", filepath.Join(here, "testdata/page")).Replace(text)
	s.write("Caddyfile", text)
	s.write("features.json", features)
	s.start()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Log(s.log)
		}
	})
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(caddyPath, "run", "--config", filepath.Join(s.dir, "Caddyfile"))
	s.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = s.log, s.log, s.dir
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.eventually(20*time.Second, "Caddy does not serve", func() bool {
		resp, err := http.Get(s.admin + "/feature_flags/flags")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

// command runs `caddy ARGS` against the server.
func (s *server) command(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(caddyPath, args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("caddy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// api asks the admin API.
func (s *server) api(method, path, body string) map[string]any {
	s.t.Helper()
	r := s.do(method, s.admin+"/feature_flags/"+path, body)
	var out map[string]any
	if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status != http.StatusOK {
		s.t.Fatalf("%s %s: status %d, %v: %s", method, path, r.status, err, r.body)
	}
	return out
}

type reply struct {
	status int
	header http.Header
	body   string
}

// do makes a request; headers are given as name, value, ….
func (s *server) do(method, url, body string, headers ...string) reply {
	s.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	req.Close = true // a reload may close one that idles
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

func (s *server) eventually(limit time.Duration, what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("after %v: %s", limit, what)
		}
	}
}

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

// upstream is an application of its own.
func upstream(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func readFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	return string(text), err
}
