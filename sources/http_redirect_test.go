package sources

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// spy is a server that keeps what it was asked with.
func spy(t *testing.T, handle http.HandlerFunc) (*httptest.Server, *[]*http.Request) {
	asked := new([]*http.Request)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r)
		handle(w, r)
	}), asked
}

// redirectTo is a handler that sends to other addresses, by path.
func redirectTo(to map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if location, ok := to[r.URL.Path]; ok {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
			return
		}
		io.WriteString(w, body)
	}
}

func TestHTTPRedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		s, asked := spy(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a/b" {
				http.Redirect(w, r, "../c?d=e#f", status)
				return
			}
			io.WriteString(w, "abc")
		})
		h := &HTTP{URL: strings.Replace(s.URL, "//", "//jan:hunter2@", 1) + "/a/b", Header: http.Header{"X-Token": {"hunter3"}}}
		if doc := wantBody(t, h, "abc"); doc.Name != s.URL+"/a/b" {
			t.Errorf("name %s", doc.Name)
		}
		// Of the same origin: it gets all.
		last := (*asked)[1]
		if _, password, _ := last.BasicAuth(); len(*asked) != 2 || last.URL.String() != "/c?d=e" || last.Header.Get("X-Token") != "hunter3" || password != "hunter2" {
			t.Errorf("status %d: asked with %+v", status, last)
		}
	}
}

// TestHTTPRedirectToAnotherHost: nothing that is for the first one reaches the other, and the first gets it again.
func TestHTTPRedirectToAnotherHost(t *testing.T) {
	back := ""
	other, toOther := spy(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, back, http.StatusFound) })
	s, toFirst := spy(t, redirectTo(map[string]string{"/f": strings.Replace(other.URL, "//", "//ann:theirs@", 1) + "/x?sig=abc"}, "abc"))
	back = s.URL + "/g"
	h := &HTTP{
		URL:    strings.Replace(s.URL, "//", "//jan:hunter2@", 1) + "/f?token=hunter3",
		Header: http.Header{"X-Token": {"hunter4"}, "Cookie": {"session=hunter5"}, "Host": {"hunter6"}, "User-Agent": {"hunter7"}},
	}
	wantBody(t, h, "abc")
	if len(*toOther) != 1 || len(*toFirst) != 2 {
		t.Fatalf("asked %d and %d times", len(*toFirst), len(*toOther))
	}
	r := (*toOther)[0]
	if text := fmt.Sprint(r.Header, r.Host, r.URL); strings.Contains(text, "hunter") || strings.Contains(text, "theirs") || r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
		t.Errorf("the other host was asked with %s", text)
	}
	last := (*toFirst)[1]
	if _, password, _ := last.BasicAuth(); password != "hunter2" || last.Header.Get("X-Token") != "hunter4" {
		t.Errorf("the first one was asked again with %v", last.Header)
	}
	if last.URL.RawQuery != "" {
		t.Errorf("with the query %q", last.URL.RawQuery)
	}
}

func TestHTTPRedirectsThatAreNotFollowed(t *testing.T) {
	plain := serve(t, say("abc"))
	for _, c := range []struct{ name, location, want string }{
		{"file", "file:///etc/passwd", "redirected to an address that is neither http nor https"},
		{"data", "data:,hunter2", "redirected to an address that is neither http nor https"},
		{"no host", "http:///hunter2", "redirected to an address without a host"},
		{"nonsense", "http://jan:hunter2@%zz", "redirected to an address that cannot be parsed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, redirectTo(map[string]string{"/": c.location}, ""))
			wantFault(t, &HTTP{URL: s.URL}, c.want)
		})
	}
	t.Run("https to http", func(t *testing.T) {
		s := httptest.NewTLSServer(redirectTo(map[string]string{"/": strings.Replace(plain.URL, "//", "//jan:hunter2@", 1) + "/?hunter2"}, ""))
		defer s.Close()
		h := &HTTP{URL: s.URL + "/", transport: s.Client().Transport}
		wantFault(t, h, fmt.Sprintf("redirected to %q, from https to http, want https", plain.URL))
	})
	t.Run("http to https to http", func(t *testing.T) {
		s := httptest.NewTLSServer(redirectTo(map[string]string{"/": plain.URL}, ""))
		defer s.Close()
		first := serve(t, redirectTo(map[string]string{"/": s.URL + "/"}, ""))
		h := &HTTP{URL: first.URL + "/", transport: s.Client().Transport}
		wantFault(t, h, fmt.Sprintf("redirected to %q: redirected to %q, from https to http, want https", s.URL, plain.URL))
	})
	t.Run("http to https", func(t *testing.T) {
		s := httptest.NewTLSServer(say("abc"))
		defer s.Close()
		first := serve(t, redirectTo(map[string]string{"/": s.URL}, ""))
		wantBody(t, &HTTP{URL: first.URL + "/", transport: s.Client().Transport}, "abc")
	})
}

func TestHTTPRedirectsThatAreTooMany(t *testing.T) {
	steps := map[string]string{"/loop": "/loop"}
	for i := range 6 {
		steps[fmt.Sprintf("/%d", i)] = fmt.Sprintf("/%d", i+1)
	}
	s, asked := spy(t, redirectTo(steps, "abc"))
	wantBody(t, &HTTP{URL: s.URL + "/1"}, "abc")
	if len(*asked) != 6 {
		t.Errorf("asked %d times", len(*asked))
	}
	wantFault(t, &HTTP{URL: s.URL + "/0"}, "redirected more than 5 times")
	*asked = nil
	wantFault(t, &HTTP{URL: s.URL + "/loop"}, "redirected more than 5 times")
	if len(*asked) != 6 {
		t.Errorf("asked %d times", len(*asked))
	}
}

func TestHTTPSameOrigin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"http://a/x", "http://A:80/y?z", true},
		{"https://a", "https://a:443", true},
		{"http://a", "https://a", false},
		{"http://a:443", "https://a", false},
		{"http://a", "http://a.b", false},
		{"http://a", "http://a:8080", false},
		{"http://[::1]", "http://[::1]:80", true},
	} {
		a, _ := url.Parse(c.a)
		b, _ := url.Parse(c.b)
		if sameOrigin(a, b) != c.want || sameOrigin(b, a) != c.want {
			t.Errorf("%s, %s: want %v", c.a, c.b, c.want)
		}
	}
}
