package sources

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestHTTPLoadAsksWithoutCondition: who found a version bad is told it again.
func TestHTTPLoadAsksWithoutCondition(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		for range 3 {
			p.load("one")
		}
		p.watch()
		p.pass(time.Minute)
		if p.latest().Header.Get("If-None-Match") == "" {
			p.Error("the watch asked without a condition")
		}
		p.load("one")
		p.told()
		if p.latest().Header.Get("If-None-Match") != "" {
			p.Error("load asked with a condition")
		}
	})
}

func TestHTTPWatchConditions(t *testing.T) {
	const day = "Fri, 31 Dec 1999 00:00:00 GMT" // Before the bubble's time.
	for _, c := range []struct {
		name, etag, modified, wantETag, wantModified string
	}{
		{"none", "", "", "", ""},
		{"ETag", `"a"`, "", `"a"`, ""},
		{"weak ETag", `W/"a"`, "", `W/"a"`, ""},
		{"date", "", day, "", day},
		{"both", `"a"`, day, `"a"`, day},
		{"date of just now", `"a"`, "Sat, 01 Jan 2000 00:00:00 GMT", `"a"`, ""},
		{"date to come", "", "Sat, 01 Jan 2050 00:00:00 GMT", "", ""},
		{"no date", "", "yesterday", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inPortal(t, func(p *portal) {
				p.say(func(w http.ResponseWriter, r *http.Request) {
					for name, value := range map[string]string{"ETag": c.etag, "Last-Modified": c.modified} {
						if value != "" {
							w.Header().Set(name, value)
						}
					}
					if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "" {
						w.WriteHeader(http.StatusNotModified)
						return
					}
					io.WriteString(w, "one")
				})
				p.watch()
				p.pass(5 * time.Minute)
				p.told("one")
				for i, r := range p.questions()[1:] {
					if etag, modified := r.Header.Get("If-None-Match"), r.Header.Get("If-Modified-Since"); etag != c.wantETag || modified != c.wantModified {
						p.Errorf("question %d: %q, %q", i, etag, modified)
					}
				}
			})
		})
	}
}

// TestHTTPWatchUnchanged: 304 keeps the document, also over an error, and renews its time.
func TestHTTPWatchUnchanged(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		p.watch()
		first := p.told("one")[0].doc
		first.Body[0] = 'X' // Its owner may.
		p.say(http.NotFound)
		p.pass(time.Minute)
		p.told(`error: answered 404 Not Found, saying "404 page not found"`)
		p.sayVersion("one")
		p.count()
		p.pass(2 * time.Minute)
		again := p.told("one")[0]
		if again.doc.Revision != first.Revision || !again.doc.ReadAt.Equal(again.at) {
			p.Errorf("first %+v, again %+v at %v", first, again.doc, again.at)
		}
		if p.questions()[0].Header.Get("If-None-Match") != `"one"` {
			p.Error("asked for all of it")
		}
	})
}

// TestHTTPWatchBodyCounts has an ETag that stays although the body does not, and one that changes without it.
func TestHTTPWatchBodyCounts(t *testing.T) {
	inPortal(t, func(p *portal) {
		with := func(etag, text string) {
			p.say(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ETag", etag)
				io.WriteString(w, text)
			})
		}
		with(`"a"`, "one")
		p.watch()
		p.told("one")
		with(`"a"`, "two")
		p.pass(time.Minute)
		p.told("two")
		with(`"b"`, "two")
		p.pass(time.Minute)
		p.told()
		p.pass(time.Minute)
		if etag := p.latest().Header.Get("If-None-Match"); etag != `"b"` {
			p.Errorf("asks with %s", etag)
		}
	})
}

// TestHTTPWatchHalfABody: what a body that was cut off is called is not taken for a version that is here.
func TestHTTPWatchHalfABody(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		p.watch()
		p.told("one")
		p.say(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"two"`)
			w.Header().Set("Content-Length", "3")
			io.WriteString(w, "tw")
		})
		p.pass(40 * time.Second)
		p.told("error: the body is cut off")
		p.sayVersion("two")
		p.pass(2 * time.Minute)
		p.told("two")
	})
}

// TestHTTPWatchPutBack has a server that knows dates only, and a file that is put back with an older one.
func TestHTTPWatchPutBack(t *testing.T) {
	dir := t.TempDir()
	inPortal(t, func(p *portal) {
		path := filepath.Join(dir, "f.json")
		write := func(text string, age time.Duration) {
			put(p.T, path, text)
			at := time.Now().Add(-age)
			must(p.T, os.Chtimes(path, at, at))
		}
		p.say(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
		write("new", time.Hour)
		p.watch()
		p.told("new")
		write("old", 24*time.Hour)
		p.pass(5 * time.Minute)
		p.told()
		p.pass(6 * time.Minute)
		p.told("old")
	})
}

// TestHTTPWatchRedirected: what one address calls its version is not said to another.
func TestHTTPWatchRedirected(t *testing.T) {
	inPortal(t, func(p *portal) {
		var to atomic.Value
		to.Store("/a")
		p.say(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/f.json" {
				http.Redirect(w, r, to.Load().(string), http.StatusFound)
				return
			}
			w.Header().Set("ETag", `"1"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			io.WriteString(w, r.URL.Path)
		})
		p.watch()
		p.told("/a")
		p.count()
		p.pass(34 * time.Second)
		asked := p.questions()
		if len(asked) != 2 || asked[0].Header.Get("If-None-Match") != "" || asked[1].Header.Get("If-None-Match") != `"1"` {
			p.Errorf("asked with %v", asked)
		}
		to.Store("/b")
		p.pass(34 * time.Second)
		p.told("/b")
	})
}
