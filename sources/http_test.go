package sources

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve is a server on loopback for one test.
func serve(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s
}

// say is a handler that always answers the same.
func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

// serveBytes is a server that says what nobody can make net/http say: it reads a request and calls answer, and then
// closes the connection.
func serveBytes(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 0, 1<<16)
			for !bytes.Contains(head, []byte("\r\n\r\n")) {
				n, err := conn.Read(head[len(head):cap(head)])
				if err != nil {
					break
				}
				head = head[:len(head)+n]
			}
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// sayBytes answers with text.
func sayBytes(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

func packed(text []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w.Write(text)
	w.Close()
	return b.Bytes()
}

func wantBody(t *testing.T, h *HTTP, want string) Document {
	t.Helper()
	doc, err := h.Load(t.Context())
	if err != nil || string(doc.Body) != want {
		t.Fatalf("got %.100q, %v, want %.100q", doc.Body, err, want)
	}
	return doc
}

// wantFault wants Load to fail with a text, behind the name.
func wantFault(t *testing.T, h *HTTP, want string) {
	t.Helper()
	doc, err := h.Load(t.Context())
	want = fmt.Sprintf("http %q: %s", h.Name(), want)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if doc.Name != h.Name() || doc.Body != nil || doc.Revision != "" || !doc.ReadAt.IsZero() {
		t.Errorf("document %+v beside an error", doc)
	}
}

func TestHTTPName(t *testing.T) {
	for in, want := range map[string]string{
		"https://flags.example/shop.json":                     "https://flags.example/shop.json",
		"HTTPS://flags.example:8443/a%2Fb":                    "https://flags.example:8443/a%2Fb",
		"https://flags.example/ö":                             "https://flags.example/%C3%B6",
		"http://flags.example":                                "http://flags.example",
		"http://[::1]:80/":                                    "http://[::1]:80/",
		"https://jan:hunter2@flags.example/shop.json":         "https://flags.example/shop.json",
		"https://jan:hun@ter2@flags.example/shop.json":        "https://flags.example/shop.json",
		"https://flags.example/shop.json?token=hunter2&b=c":   "https://flags.example/shop.json?…",
		"https://flags.example/shop.json?":                    "https://flags.example/shop.json?…",
		"https://jan:hunter2@flags.example/?hunter2":          "https://flags.example/?…",
		"https://jan:hun/ter2@flags.example/":                 "…",
		"https://jan:12#34@flags.example/":                    "…",
		"https://flags.example/shop.json?token=hunter2#there": "…",
		"redis://jan:hunter2@flags.example/":                  "…",
		"hunter2":                                             "…",
		"":                                                    "…",
		"https://":                                            "…",
		"https:hunter2":                                       "…",
		"https://flags.example/%zz":                           "…",
		"https://flags\x00.example":                           "…",
	} {
		h := &HTTP{URL: in}
		if got := h.Name(); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if err := h.Check(); (err != nil) != (want == "…") || (err != nil && strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: checked: %v", in, err)
		}
	}
}

func TestHTTPCheck(t *testing.T) {
	const at = "https://flags.example/f.json"
	for _, c := range []struct {
		name, url string
		header    http.Header
		want      string
	}{
		{"fine", at, http.Header{"authorization": {"Bearer x"}, "X-Ä": nil}, `"` + at + `": a header line has a name that none can have, want one such as Authorization`},
		{"parse", "http://a b", nil, `"…": the URL cannot be parsed, want one such as https://flags.example/flags.json`},
		{"scheme", "ftp://a/b", nil, `"…": the URL has the wrong scheme, want http or https`},
		{"host", "http:///b", nil, `"…": the URL has no host, want one such as https://flags.example/flags.json`},
		{"port only", "http://:80/b", nil, `"…": the URL has no host, want one such as https://flags.example/flags.json`},
		{"fragment", at + "#", nil, `"…": the URL has a fragment, want none; a # in a secret is written as %23`},
		{"secret for a name", at, http.Header{"Authorization: Bearer hunter2": {""}}, `"` + at + `": a header line has a name that none can have, want one such as Authorization`},
		{"no name", at, http.Header{"": {"hunter2"}}, `"` + at + `": a header line has a name that none can have, want one such as Authorization`},
		{"range", at, http.Header{"range": {"bytes=0-1"}}, `"` + at + `": header line "range" cannot be sent along, want it left out`},
		{"two lines", at, http.Header{"X-A": {"fine", "hunter2\r\nX-B: c"}}, `"` + at + `": header line "X-A": the value holds control characters, want none`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &HTTP{URL: c.url, Header: c.header}
			if err := h.Check(); err == nil || err.Error() != "http "+c.want {
				t.Errorf("got  %v\nwant http %s", err, c.want)
			}
			if _, err := h.Load(t.Context()); err == nil || err.Error() != "http "+c.want {
				t.Errorf("load: got %v", err)
			}
		})
	}
	if err := (&HTTP{URL: at, Header: http.Header{"Authorization": {"Bearer x"}, "host": {"a"}, "X-Tab": {"a\tb"}}}).Check(); err != nil {
		t.Error(err)
	}
}

func TestHTTPLoad(t *testing.T) {
	var got *http.Request
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
		io.WriteString(w, "abc")
	})
	h := &HTTP{
		URL:    strings.Replace(s.URL, "//", "//jan:hunter2@", 1) + "/shop.json?token=x",
		Header: http.Header{"x-tenant": {"shop", "two"}, "Host": {"flags.example"}},
	}
	for range 2 {
		doc := wantBody(t, h, "abc")
		if doc.Name != s.URL+"/shop.json?…" || h.Name() != doc.Name || time.Since(doc.ReadAt) > time.Minute ||
			doc.Revision != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
			t.Errorf("document %+v", doc)
		}
		user, password, _ := got.BasicAuth()
		if user != "jan" || password != "hunter2" || got.Host != "flags.example" || fmt.Sprint(got.Header["X-Tenant"]) != "[shop two]" ||
			got.URL.RawQuery != "token=x" || got.Header.Get("Cookie") != "" || got.Header.Get("Referer") != "" || got.Method != http.MethodGet {
			t.Errorf("request %+v", got)
		}
		doc.Body[0] = 'X' // Its owner may.
	}
	h = &HTTP{URL: h.URL, Header: http.Header{"Authorization": {"Bearer x"}, "User-Agent": {"shop/1"}}}
	wantBody(t, h, "abc")
	if got.Header.Get("Authorization") != "Bearer x" || got.UserAgent() != "shop/1" || got.Host == "flags.example" {
		t.Errorf("request %+v", got)
	}
}
