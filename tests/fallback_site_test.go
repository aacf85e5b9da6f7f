package tests

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fallbackSite starts a site that is written out, with an old way and a canary that
// fails.
func fallbackSite(t *testing.T, text, features string, words map[string]string) (c *instance, on, off *ledger) {
	t.Helper()
	on, off = keep(t, "new", fails), keep(t, "old", nil)
	all := map[string]string{"OLD": host(off.Server), "NEW": host(on.Server)}
	for k, v := range words {
		all[k] = v
	}
	return serve(t, site+text+"\n}", features, all), on, off
}

// Where a handler further out has made a copy of the request, placeholders look at
// another one than the route's.
func TestFallbackBehindACopyOfTheRequest(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte("old file"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	for _, outer := range []string{"", "tracing", "forward_auth AUTH {\nuri /auth\n}"} {
		words := map[string]string{"OUTER": outer, "AUTH": host(upstream(t, "auth", nil)), "ROOT": dir}
		words["OUTER"] = strings.ReplaceAll(outer, "AUTH", words["AUTH"])
		c, on, off := fallbackSite(t, `route {
			OUTER
			vars way old
`+userContext+`
			feature_route new_ui {
				on {
					rewrite * /new{uri}
					vars way new
					request_header X-New 1
					map {path} {dest} {
						default NEW
					}
					reverse_proxy {dest}
				}
				off {
					rewrite * /old{uri}
					map {path} {dest} {
						default OLD
					}
					reverse_proxy {dest} {
						header_up X-Way {vars.way}
						header_up X-Saw {header.X-New}
						header_up X-Path {path}
					}
				}
				fallback
			}
		}`, onlyAlice, words)
		if r := c.get("/page?q=1", "X-User-ID", "alice"); r.status != 200 || r.body != "old" {
			t.Fatalf("%q: %d %q", outer, r.status, r.body)
		}
		if got := on.all()[0].uri; got != "/new/page?q=1" {
			t.Errorf("%q: the canary was sent %s", outer, got)
		}
		got := off.all()[0]
		if got.uri != "/old/page?q=1" || got.header.Get("X-Way") != "old" || got.header.Get("X-Saw") != "" || got.header.Get("X-Path") != "/old/page" || got.header.Get("X-New") != "" {
			t.Errorf("%q: off was sent %s %v", outer, got.uri, got.header)
		}

		files, _, _ := fallbackSite(t, `route {
			OUTER
`+userContext+`
			feature_route new_ui {
				on {
					root * /nowhere
					reverse_proxy NEW
				}
				off {
					root * ROOT
					file_server
				}
				fallback
			}
		}`, onlyAlice, words)
		if r := files.get("/page", "X-User-ID", "alice"); r.body != "old file" {
			t.Errorf("%q: %d %q, want the old file", outer, r.status, r.body)
		}
	}
}

// A failure counts once, whichever of several routes of the flag answers it.
func TestFallbackOfAFlagWithSeveralRoutes(t *testing.T) {
	inner := `feature_route new_ui {
		on {
			reverse_proxy NEW
		}
		off {
			reverse_proxy OLD
		}
		fallback
	}
`
	for name, text := range map[string]string{
		"one after another":          "route {\n" + userContext + "feature_route new_ui {\non {\nrequest_header X-Beta 1\n}\n}\n" + inner + "}",
		"nested":                     "route {\n" + userContext + "feature_route new_ui {\non {\n" + inner + "}\noff {\nreverse_proxy OLD\n}\n}\n}",
		"nested, both with fallback": "route {\n" + userContext + "feature_route new_ui {\non {\n" + inner + "}\noff {\nreverse_proxy OLD\n}\nfallback\n}\n}",
	} {
		c, on, off := fallbackSite(t, text, onlyAlice, nil)
		if r := c.get("/", "X-User-ID", "alice"); r.status != 200 || r.body != "old" {
			t.Fatalf("%s: %d %q", name, r.status, r.body)
		}
		if f := c.settled("new_ui", 1).Guard.Figures.Canary; f.Requests != 1 || f.Errors != 1 {
			t.Errorf("%s: %+v, want one failure", name, f)
		}
		if len(on.all()) != 1 || len(off.all()) != 1 {
			t.Errorf("%s: the canary was asked %d times and off %d", name, len(on.all()), len(off.all()))
		}
	}
}

// What off is told, whatever else stands in its way.
func TestFallbackIsTold(t *testing.T) {
	two := `{"a": {"active": true}, "b": {"active": true}, "fallback": {"active": true}, "mirror": {"active": true}}`
	ways := "off {\nreverse_proxy OLD\n}\nfallback\n}\n"
	for _, test := range []struct {
		name, text string
		want       map[string]string
	}{
		{
			"a route of another flag in off", "route {\nfeature_flags {\nflags a b\n}\nfeature_route a {\non {\nreverse_proxy NEW\n}\noff {\nfeature_route b {\non {\nreverse_proxy OLD\n}\nfallback\n}\n}\nfallback\n}\n}",
			map[string]string{"X-Feature-A": "off", "X-Feature-B": "on", "X-Feature-Fallback": "a"},
		},
		{
			"a route that has fallen back in on", "route {\nfeature_flags {\nflags a b\n}\nfeature_route a {\non {\nfeature_route b {\non {\nreverse_proxy NEW\n}\noff {\nerror 500\n}\nfallback\n}\n}\n" + ways + "}",
			map[string]string{"X-Feature-A": "off", "X-Feature-B": "off", "X-Feature-Fallback": "a"},
		},
		{
			"a handler in off", "route {\nfeature_flags {\nflags a b\n}\nfeature_route a {\non {\nreverse_proxy NEW\n}\noff {\nfeature_flags {\nflags a b\n}\nreverse_proxy OLD\n}\nfallback\n}\n}",
			map[string]string{"X-Feature-A": "off", "X-Feature-B": "on", "X-Feature-Fallback": "a"},
		},
		{
			"flags with the names of headers", "route {\nfeature_flags\nfeature_route a {\non {\nreverse_proxy OLD\n}\nfallback\nmirror 100%\n}\n}",
			map[string]string{"X-Feature-A": "on", "X-Feature-Fallback": "on", "X-Feature-Mirror": "on"},
		},
	} {
		c, _, off := fallbackSite(t, test.text, two, nil)
		if r := c.get("/"); r.status != 200 || r.body != "old" {
			t.Fatalf("%s: %d %q", test.name, r.status, r.body)
		}
		got := off.all()[0].header
		for name, want := range test.want {
			if v := got[name]; len(v) != 1 || v[0] != want {
				t.Errorf("%s: %s is %q, want %q", test.name, name, v, want)
			}
		}
	}
}

// `after` is the canary's time, not that of a client who is still sending.
func TestFallbackOfASlowClient(t *testing.T) {
	for _, sized := range []bool{true, false} {
		c, _, off := withFallback(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "new")
		}, map[string]string{"FALLBACK": "all {\nafter 1s\n}"})
		req, _ := http.NewRequest("POST", c.url(0)+"/", &drip{from: strings.NewReader(strings.Repeat("x", 5000)), parts: 10, pause: 150 * time.Millisecond, size: 5000})
		if sized {
			req.ContentLength = 5000
		}
		req.Header.Set("X-User-ID", "alice")
		r := do(t, client, req)
		if f := c.settled("new_ui", 1).Guard.Figures.Canary; r.body != "new" || f.Errors != 0 || len(off.all()) != 0 {
			t.Errorf("%d %q, %+v, off asked %d times", r.status, r.body, f, len(off.all()))
		}
	}
}

// What cannot be sent again takes nothing from the budget.
func TestFallbackBudgetIsNotWasted(t *testing.T) {
	c, _, _ := withFallback(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusInternalServerError)
	}, map[string]string{"FALLBACK": "all {\nbudget 0% 5\nbody 1KiB\n}"})
	for range 5 {
		req, _ := http.NewRequest("POST", c.url(0)+"/", io.MultiReader(strings.NewReader(strings.Repeat("x", 5000))))
		req.Header.Set("X-User-ID", "alice")
		if r := do(t, client, req); r.status != 500 {
			t.Fatal(r.status)
		}
	}
	if r := c.get("/", "X-User-ID", "alice"); r.status != 200 {
		t.Errorf("%d, want off's answer", r.status)
	}
}

// A request with trailers goes to the canary alone: net/http writes to them when
// the body ends, whoever reads it then.
func TestFallbackNotWithTrailers(t *testing.T) {
	c, _, off := withFallback(t, fails, map[string]string{"FALLBACK": "all"})
	req, _ := http.NewRequest("POST", c.url(0)+"/", io.MultiReader(strings.NewReader("hello")))
	req.Header.Set("X-User-ID", "alice")
	req.Trailer = http.Header{"X-Tail": {"yes"}}
	if r := do(t, client, req); r.status != 500 || len(off.all()) != 0 {
		t.Errorf("%d, off asked %d times", r.status, len(off.all()))
	}
	if told := c.entries(1)[0].Flags["new_ui"]; told.Fallback != "body" {
		t.Errorf("access log %+v", told)
	}
}
