package caddymodule

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/sources"
)

// A copy that the disk refuses, or that somebody has removed, is kept when it can be.
func TestCopyIsTriedAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "features.json")
	if err := os.WriteFile(file, []byte(`{"a": {"active": true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := (&sources.File{Path: file}).Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "sources")
	if err := os.WriteFile(dir, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &App{log: zap.NewNop(), engine: testEngine(t, ""), quiet: newQuietLog(zap.NewNop())}
	s := &liveSource{Source: &sources.File{Path: file}, remote: "x", kept: &sources.Kept{Path: sources.KeptPath(dir, "x")}}
	s.take(text, nil)
	s.inForce = s.wanted
	a.sources = []*liveSource{s}
	told := func() bool { return strings.Contains(strings.Join(a.degraded(), " "), "last good copy") }
	if a.keepCopy(s); !told() {
		t.Error("it is not told that there is no copy")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if a.keepCopy(s); told() || !s.kept.Exists() {
			t.Errorf("there is a copy: %t; degraded: %v", s.kept.Exists(), a.degraded())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a remote source is asked with tells its copy from others'.
func TestIdentityOf(t *testing.T) {
	seen := map[string]bool{}
	for _, h := range []http.Header{
		nil, {"X-Env": {"a"}}, {"X-Env": {"b"}}, {"X-Env": {"a", "b"}}, {"Authorization": {"a"}}, {"X-Env": {"a"}, "Authorization": {"a"}},
	} {
		for range 3 {
			seen[identityOf("http://flags.example", h)] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d of 6 are told apart", len(seen))
	}
}

// A webhook's secret that would sign nothing, or by each of its words, is refused, and
// not told.
func TestWebhookSecrets(t *testing.T) {
	for secret, want := range map[string]string{
		"": "is empty", " \n": "is empty", "correct horse battery": "white space", "{env.NO_SUCH_SECRET}": "placeholder", "long-enough-to-sign": "",
	} {
		w := Webhook{URL: "https://hooks.example", Secrets: []string{"first-of-two-secrets", secret}}
		target, err := w.target(caddy.NewReplacer())
		switch {
		case want == "":
			if err != nil || target.Secret != "first-of-two-secrets long-enough-to-sign" {
				t.Errorf("%q: %v", target.Secret, err)
			}
		case err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "horse") || strings.Contains(err.Error(), "first"):
			t.Errorf("%q: %v", secret, err)
		}
	}
}
