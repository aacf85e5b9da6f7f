package tests

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// binary builds the program that users run, once.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv("HOME"), "caddy-under-test")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/caddy")
	cmd.Env = append(os.Environ(), goEnvironment()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	return path, nil
})

// goEnvironment gives the go command the caches it had before TestMain moved
// the home folder away.
func goEnvironment() []string { return goCaches }

// process is a Caddy of its own, to be killed.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	path  string // of the binary
	dir   string
	admin string // host:port
	site  string // http://host:port
	file  string // the Caddyfile
	log   *lockedBuffer
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

// newProcess writes the Caddyfile, in which SITE, ADMIN, STATE, FEATURES and
// the words given are replaced, and does not start it yet.
func newProcess(t *testing.T, caddyfile, features string, words map[string]string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, path: path, dir: t.TempDir(), admin: freeAddress(t), site: "http://" + freeAddress(t), log: &lockedBuffer{}}
	for k, v := range words {
		caddyfile = strings.ReplaceAll(caddyfile, k, v)
	}
	caddyfile = strings.NewReplacer("SITE", p.site, "ADMIN", p.admin, "STATE", filepath.Join(p.dir, "state"),
		"FEATURES", filepath.Join(p.dir, "features.json")).Replace(caddyfile)
	p.file = filepath.Join(p.dir, "Caddyfile")
	p.write("Caddyfile", caddyfile)
	if features != "" {
		p.write("features.json", features)
	}
	return p
}

func (p *process) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		p.t.Fatal(err)
	}
}

// run starts it and waits until it serves. wrap, if any, is a command before it.
func (p *process) run(wrap ...string) {
	p.t.Helper()
	args := append(append([]string{}, wrap...), p.path, "run", "--config", p.file)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd := p.cmd
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
	})
	eventually(p.t, 20*time.Second, "Caddy does not serve", func() bool {
		resp, err := http.Get("http://" + p.admin + "/feature_flags/flags")
		if err != nil {
			return false
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false
		}
		_, err = try(p.site + "/")
		return err == nil
	})
}

// kill ends it as a power cut would.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_, _ = p.cmd.Process.Wait()
}

// command runs `caddy feature-flags …` and returns what it printed and its
// exit status.
func (p *process) command(stdin string, args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	cmd := exec.Command(p.path, append([]string{"feature-flags"}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		p.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// flags reads the API's list as text.
func (p *process) flags() string {
	p.t.Helper()
	return ask(p.t, http.MethodGet, "http://"+p.admin+"/feature_flags/flags", "").body
}

// newCaddy prepares a command of the binary.
func newCaddy(p *process, args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	return cmd
}
