package tests

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A mistake of one remote source holds up no other.
func TestRemoteSourcesStandAlone(t *testing.T) {
	one, two := newRemote(t), newRemote(t)
	says := func(rm *remote, text string) {
		tag := fmt.Sprintf("%q", fmt.Sprint(len(text)))
		rm.does(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("ETag", tag)
			fmt.Fprint(w, text)
		})
	}
	says(one, `{"a": {"active": true}}`)
	says(two, `{"b": {"active": true}}`)
	text := strings.Replace(remoteSite, `		source http REMOTE/flags.json?token=hidden-token {
			poll 1s
			header Authorization "Bearer open sesame"
			timeout 2s
			OPTIONAL
		}
`, "		source http ONE/ {\n			poll 1s\n		}\n		source http TWO/ {\n			poll 1s\n		}\n", 1)
	c := start(t, text, "{}", map[string]string{"ONE": one.URL, "TWO": two.URL, "APP": host(echo(t, "app"))})
	if !c.on("A") || !c.on("B") {
		t.Fatal("the flags are not on")
	}
	eventually(t, 5*time.Second, "there are no copies of both", func() bool {
		kept, err := filepath.Glob(filepath.Join(c.words["STATE"], "sources", "*.kept"))
		return err == nil && len(kept) == 2
	})
	says(two, `{"b": {"active": "yes?"}}`)
	says(one, `{"a": {"active": false}}`)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if c.on("A") || !c.on("B") {
		t.Errorf("a mistake of one source has put the other back: a %t, b %t", c.on("A"), c.on("B"))
	}
	if degraded := fmt.Sprint(c.api("GET", "flags", "", 200)["degraded"]); !strings.Contains(degraded, two.URL) {
		t.Errorf("degraded %s", degraded)
	}
	says(two, `{"b": {"active": true}, "b2": {"active": true}}`)
	eventually(t, 10*time.Second, "it is not taken when it is well again", func() bool { return c.on("B2") })
	eventually(t, 10*time.Second, "it is degraded still", func() bool {
		return len(c.api("GET", "flags", "", 200)["degraded"].([]any)) == 0
	})
	if c.on("A") {
		t.Error("a is on again")
	}
}

// Sources at one address that a header tells apart have a copy each, slow ones are waited
// for at once, and a copy that cannot be written is tried again.
func TestRemoteSourcesByHeader(t *testing.T) {
	rm := newRemote(t)
	rm.does(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"from_%s": {"active": true}}`, r.Header.Get("X-Env"))
	})
	source := func(env string) string {
		return "		source http REMOTE/ {\n			poll 1s\n			timeout 2s\n			optional\n			header X-Env " + env + "\n		}\n"
	}
	before, rest, _ := strings.Cut(remoteSite, "		source http REMOTE")
	_, rest, _ = strings.Cut(rest, "		}\n")
	text := strings.ReplaceAll(before+source("a")+source("b")+source("c")+rest, "http://:0 {\n	bind 127.0.0.1", "SITE {")
	words := remoteWords(t, rm)
	words["DIR"] = t.TempDir()
	p := newProcess(t, text, localFlags, words)
	p.run()
	asked := func() string {
		t.Helper()
		r, err := try(p.site + "/")
		if err != nil {
			t.Fatal(err)
		}
		h := r.echoed(t).Header
		return h.Get("X-Feature-From-A") + h.Get("X-Feature-From-B") + h.Get("X-Feature-From-C")
	}
	if got := asked(); got != "ononon" {
		t.Fatalf("got %s", got)
	}
	kept := func() int {
		files, _ := filepath.Glob(filepath.Join(p.dir, "state", "sources", "*.kept"))
		return len(files)
	}
	eventually(t, 5*time.Second, "there are no copies", func() bool { return kept() == 3 })
	rm.does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p.kill()
	begun := time.Now()
	p.run()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a start with three sources that hang for 2 s took %v", took)
	}
	if got := asked(); got != "ononon" {
		t.Errorf("without the remote: %s", got)
	}
}
