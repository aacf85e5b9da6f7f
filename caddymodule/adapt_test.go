package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/seed-6adbc061/caddy-feature-flags/caddymodule"
)

var update = flag.Bool("update", false, "write the goldens anew")

const separator = "\n----------\n"

// TestAdapt compares what every Caddyfile in testdata/adapt becomes, JSON or
// the text of an error, with the golden behind the line of dashes.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(text), separator)
			var got string
			config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
			if err != nil {
				got = err.Error()
			} else {
				var out bytes.Buffer
				if err := json.Indent(&out, config, "", "\t"); err != nil {
					t.Fatal(err)
				}
				got = out.String()
			}
			if *update {
				if err := os.WriteFile(file, []byte(input+separator+got+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != strings.TrimSuffix(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestSyntaxIsDocumented compares the grammar above each parser with the one in
// the docs.
func TestSyntaxIsDocumented(t *testing.T) {
	var blocks [][]string
	for _, name := range []string{"caddyfile.md", "clients.md", "console.md"} {
		doc, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, regexp.MustCompile("(?s)```caddyfile-syntax\n(.*?)```").FindAllStringSubmatch(string(doc), -1)...)
	}
	comments := map[string]string{}
	for _, file := range []string{"caddyfile_app.go", "caddyfile_handler.go", "caddyfile_route.go", "caddyfile_ofrep.go", "caddyfile_feedback.go", "caddyfile_console.go", "policy.go", "matcher.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)(?:^//\t.*\n)+`).FindAllString(string(source), -1) {
			lines := strings.Split(strings.TrimSuffix(m, "\n"), "\n")
			for i := range lines {
				lines[i] = strings.TrimPrefix(lines[i], "//\t")
			}
			comments[strings.Join(lines, "\n")+"\n"] = file
		}
	}
	if len(blocks) != 8 {
		t.Errorf("the docs have %d grammars, want 8", len(blocks))
	}
	for _, b := range blocks {
		if comments[b[1]] == "" {
			t.Errorf("no parser is commented with the grammar\n%s", b[1])
		}
	}
}

// TestExamplesAdapt has every Caddyfile of the docs adapted: whole, or as the inside of a
// site or of the global options.
func TestExamplesAdapt(t *testing.T) {
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range append(docs, "../README.md", "../xcaddy.md") {
		doc, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
			n++
			text := strings.ReplaceAll(m[1], " …", "")
			var errs []string
			for _, whole := range []string{text, ":80 {\n" + text + "}\n", "{\n" + text + "}\n"} {
				if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(whole), map[string]any{"filename": "Caddyfile"}); err != nil {
					errs = append(errs, err.Error())
				}
			}
			if len(errs) == 3 {
				t.Errorf("%s: %s\n%s", filepath.Base(name), strings.Join(errs, "\n"), m[1])
			}
		}
	}
	if n < 16 {
		t.Errorf("%d examples, want all of them", n)
	}
}
