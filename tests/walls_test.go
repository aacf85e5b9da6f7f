package tests

import (
	"os/exec"
	"strings"
	"testing"
)

// TestWalls keeps the rooms apart: what each domain package may import beside
// the standard library, with the reason for each ban.
func TestWalls(t *testing.T) {
	const module = "github.com/seed-6adbc061/caddy-feature-flags/"
	banned := map[string]string{
		"github.com/caddyserver/": "domain packages know no Caddy",
		"go.uber.org/zap":         "domain packages return errors, and leave logging to caddymodule",
		"net/http":                "domain packages know no HTTP; caddymodule translates",
	}
	rooms := []struct {
		name    string
		allowed []string          // module paths beside the standard library
		spared  map[string]string // of the banned, with the reason
	}{
		{"evaluator", []string{"cel.dev/", "go.yaml.in/yaml/v3", "github.com/antlr4-go/antlr/v4", "google.golang.org/", "golang.org/x/"}, nil},
		{"internal/boltfile", nil, nil},
		{"internal/fsys", nil, nil},
		{"monitors", nil, nil},
		{"rollout", []string{module + "evaluator", "cel.dev/", "go.yaml.in/yaml/v3", "github.com/antlr4-go/antlr/v4", "google.golang.org/", "golang.org/x/"}, nil},
		{
			"sources",
			[]string{module + "evaluator", "cel.dev/", "go.yaml.in/yaml/v3", "github.com/antlr4-go/antlr/v4", "google.golang.org/", "golang.org/x/", module + "internal/fsys", "github.com/cenkalti/backoff/v5"},
			map[string]string{"net/http": "it fetches definitions as a client; requests that Caddy serves it does not know"},
		},
		{"state", []string{module + "internal/fsys", module + "monitors", module + "evaluator", "cel.dev/", "go.yaml.in/yaml/v3", "github.com/antlr4-go/antlr/v4", "google.golang.org/", "golang.org/x/"}, nil},
		{"state/history", []string{module + "internal/boltfile", module + "internal/fsys", module + "monitors", "go.etcd.io/bbolt", "golang.org/x/sys"}, nil},
		{
			"webhook",
			[]string{module + "internal/boltfile", module + "internal/fsys", "go.etcd.io/bbolt", "github.com/cenkalti/backoff/v5", "golang.org/x/sys"},
			map[string]string{"net/http": "requests are what it is for; those that Caddy serves it does not know"},
		},
	}
	for _, room := range rooms {
		t.Run(room.name, func(t *testing.T) {
			out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+room.name).Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			found := 0
			for dep := range strings.FieldsSeq(string(out)) {
				found++
				for prefix, why := range banned {
					if strings.HasPrefix(dep, prefix) {
						t.Errorf("%s depends on %s: %s", room.name, dep, why)
					}
				}
				allowed := strings.HasPrefix(dep, module+room.name)
				for _, prefix := range room.allowed {
					allowed = allowed || strings.HasPrefix(dep, prefix)
				}
				if !allowed {
					t.Errorf("%s depends on %s, which is not among what it may import", room.name, dep)
				}
			}
			if found == 0 {
				t.Error("go list gave nothing")
			}
			standard, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, module+room.name).Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			for dep := range strings.FieldsSeq(string(standard)) {
				if why := banned[dep]; why != "" && room.spared[dep] == "" {
					t.Errorf("%s imports %s: %s", room.name, dep, why)
				}
			}
		})
	}
}
