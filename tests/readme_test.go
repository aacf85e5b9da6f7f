package tests

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// What README shows is what happens: its console block is run through sh
// against its Caddyfile, and so is every command it gives.
func TestREADME(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	fenced := func(language string) (blocks []string) {
		for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
			blocks = append(blocks, m[1])
		}
		return blocks
	}
	const run = "go run ./cmd/caddy run --config Caddyfile.example\n"
	shell := fenced("sh")
	if !slices.Contains(shell, run) {
		t.Fatalf("README has no block that says %s", run)
	}
	for _, port := range []string{"8080", "8081", "8082", "9001", "9002", "2019"} {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatalf("port %s, which Caddyfile.example has, is taken: %v", port, err)
		}
		l.Close()
	}
	p := newProcess(t, "", "", nil)
	p.admin, p.site, p.file = "localhost:2019", "http://localhost:8080", "Caddyfile.example"
	command := func(name string, args ...string) *exec.Cmd {
		cmd := newCaddy(p)
		cmd.Path, cmd.Args, cmd.Dir = name, append([]string{name}, args...), ".."
		return cmd
	}
	caddy := command(p.path, "run", "--config", "Caddyfile.example")
	caddy.Stdout, caddy.Stderr = p.log, p.log
	if err := caddy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = caddy.Process.Kill()
		_ = caddy.Wait()
		if t.Failed() {
			t.Log(p.log)
		}
	})
	eventually(t, 20*time.Second, "the example does not serve", func() bool {
		r, err := try("http://localhost:2019/feature_flags/flags")
		if err != nil || r.status != http.StatusOK {
			return false
		}
		_, err = try(p.site + "/")
		return err == nil
	})

	blocks := fenced("console")
	if len(blocks) == 0 {
		t.Fatal("README has no console block")
	}
	sh := func(line string) (string, error) {
		cmd := command("/bin/sh", "-c", line)
		out, err := cmd.Output()
		return string(out), err
	}
	shown, said := "", ""
	for line := range strings.Lines(strings.Join(blocks, "")) {
		shown += line
		typed, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		if !strings.Contains(typed, "curl ") {
			t.Errorf("README's console types %q: only curl is expected", typed)
		}
		// On a terminal curl shows no progress for answers this short.
		out, err := sh(strings.ReplaceAll(typed, "curl ", "curl -sS --noproxy '*' "))
		if err != nil {
			t.Fatalf("%s: %v", typed, err)
		}
		said += line + out
	}
	if said != shown {
		t.Errorf("README shows\n%s\nand what happens is\n%s", shown, said)
	}

	// After the console the flag is tripped, as README goes on to show and reset.
	quoted := strings.ReplaceAll(p.path, "'", `'\''`)
	ran := 0
	for _, block := range shell {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			rest, ok := strings.CutPrefix(line, "go run ./cmd/caddy feature-flags ")
			switch {
			case !ok && (line == "" || line+"\n" == run || strings.HasPrefix(line, "xcaddy build ") || line == "make test"):
				continue
			case !ok:
				t.Errorf("README gives a command that nobody has tried: %s", line)
				continue
			case rest == "watch": // TestWatch does
				continue
			}
			ran++
			out, err := sh("'" + quoted + "' feature-flags " + rest)
			if err != nil || out == "" && !strings.HasPrefix(rest, "lint ") {
				t.Errorf("%s: %v, printed %q", line, err, out)
			}
			want := map[string]string{
				"show":     "by errors: 6 canary requests failed",
				"reset":    "new_shop: split",
				"disable":  "new_shop: disabled",
				"audit":    "fixed in 1.4.2",
				"list":     "new_shop",
				"evaluate": "new_shop: off (SPLIT rollout)",
			}[strings.Fields(rest)[0]]
			if !strings.Contains(out, want) {
				t.Errorf("%s prints\n%s, which does not say %q", line, out, want)
			}
		}
	}
	if ran < 7 {
		t.Errorf("README shows %d commands that were run, want at least 7", ran)
	}

	// Its Caddyfiles are valid, and its small features file too.
	for i, block := range fenced("caddyfile") {
		p.write("features.json", fenced("json")[0])
		p.write("Caddyfile", strings.ReplaceAll(block, "example.com", "http://example.com"))
		adapt := command(p.path, "adapt", "--validate", "--config", p.dir+"/Caddyfile")
		adapt.Dir = p.dir
		if out, err := adapt.CombinedOutput(); err != nil {
			t.Errorf("Caddyfile %d of README: %v\n%s", i, err, out)
		}
	}
}
