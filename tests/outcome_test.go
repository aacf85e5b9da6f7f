package tests

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// proxied is a site that proxies to UP; USE goes before the proxy.
const proxied = site + `
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	USE
}
`

// breaksOff is an upstream that announces more than it sends.
func breaksOff(head string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		fmt.Fprint(rw, head)
		_ = rw.Flush()
		_ = conn.Close()
	}
}

// class is what a request came to, in the words of the log and the metrics.
type class struct {
	outcome, code string
	answered      bool
}

var (
	good    = class{"ok", "2xx", true}
	failed  = class{"error", "5xx", true}
	noReply = class{"error", "5xx", false}
)

// expect compares what API, metrics and access log say about the one request
// of the canary.
func (c *instance) expect(want class) {
	c.t.Helper()
	g := c.settled("new_ui", 1)
	errors, gone := 0, 0
	switch want.outcome {
	case "error", "aborted":
		errors = 1
	case "client_gone":
		gone = 1
	}
	f := g.Guard.Figures.Canary
	if f.Requests != 1 || f.Errors != errors || f.ClientGone != gone {
		c.t.Errorf("figures %+v, want 1 request, %d errors, %d gone", f, errors, gone)
	}
	if g.Guard.Canary.Requests != 1 || g.Guard.Canary.Errors != errors || g.Guard.Control.Requests != 0 {
		c.t.Errorf("guard %+v, want 1 request and %d errors of the canary", g.Guard, errors)
	}
	series := fmt.Sprintf(`caddy_feature_flags_requests_total{code=%q,cohort="canary",flag="new_ui",outcome=%q,reason="TARGETING_MATCH",variant="on"}`, want.code, want.outcome)
	if got := c.metric(series); got != "1" {
		c.t.Errorf("metric %s is %q, want 1", series, got)
	}
	if got := c.metric(`caddy_feature_flags_first_byte_seconds_count{cohort="canary",flag="new_ui",variant="on"}`); got != "1" {
		c.t.Errorf("first byte: count is %q, want 1", got)
	}
	told := c.entries(1)[0].Flags["new_ui"]
	if told.Variant != "on" || told.Reason != "TARGETING_MATCH" || told.Detail != "user" || told.Outcome != want.outcome {
		c.t.Errorf("access log %+v, want on by TARGETING_MATCH user, %s", told, want.outcome)
	}
	if (told.TTFB != nil) != want.answered {
		c.t.Errorf("access log: ttfb %v, want one: %t", told.TTFB, want.answered)
	}
	if (told.RequestID != "") != (errors == 1) {
		c.t.Errorf("access log: request id %q, want one for errors only", told.RequestID)
	}
}

func TestOutcomeOfAnswers(t *testing.T) {
	tests := []struct {
		name   string
		up     http.HandlerFunc
		use    string // instead of plain `reverse_proxy UP`
		method string
		status int // of the answer; 0: it breaks off
		want   class
	}{
		{"200", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }, "", "GET", 200, good},
		{"empty 200", func(w http.ResponseWriter, r *http.Request) {}, "", "GET", 200, good},
		{"HEAD", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "5") }, "", "HEAD", 200, good},
		{"204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, "", "DELETE", 204, good},
		{"302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, "", "GET", 302, class{"ok", "3xx", true}},
		{"304", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, "", "GET", 304, class{"ok", "3xx", true}},
		{"404", http.NotFound, "", "GET", 404, class{"ok", "4xx", true}},
		{"499 by the upstream", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(499) }, "", "GET", 499, class{"client_gone", "none", true}},
		{"500", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", 500) }, "", "GET", 500, failed},
		{"599", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(599) }, "", "GET", 599, failed},
		{"500 and broken off", breaksOff("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nhalf"), "", "GET", 0, class{"aborted", "2xx", true}},
		{"broken off in the body", breaksOff("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), "", "GET", 0, class{"aborted", "2xx", true}},
		{"broken off in a chunk", breaksOff("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf"), "", "GET", 0, class{"aborted", "2xx", true}},
		{"broken off before headers", breaksOff(""), "", "GET", 502, noReply},
		{"no HTTP", breaksOff("SSH-2.0-OpenSSH_9\r\n"), "", "GET", 502, noReply},
		{"refused", nil, "reverse_proxy DEAD", "GET", 502, noReply},
		{"header timeout", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		}, "reverse_proxy UP {\ntransport http {\nresponse_header_timeout 50ms\n}\n}", "GET", 504, noReply},
		{"served by a route for errors", nil, "reverse_proxy DEAD\nhandle_errors {\nrespond \"sorry\" 200\n}", "GET", 200, noReply},
		{"500 made 200 by the proxy", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", 500) }, "reverse_proxy UP {\n@5xx status 5xx\nreplace_status @5xx 200\n}", "GET", 200, good},
		{"a later try went well", nil, "reverse_proxy DEAD UP {\nlb_policy first\nlb_retries 2\nfail_duration 1m\n}", "GET", 200, good},
		{"a handler that panics", nil, "misbehave panic", "GET", 0, noReply},
		{"a handler that aborts", nil, "misbehave abort", "GET", 0, class{"aborted", "2xx", true}},
		{"a handler that does nothing", nil, "misbehave nothing", "GET", 200, class{"ok", "2xx", false}},
		{"a handler that fails early", nil, "misbehave early_error", "GET", 502, noReply},
		{"a handler that fails late", nil, "misbehave late_error", "GET", 200, class{"aborted", "2xx", true}},
		{"ReadFrom", nil, "misbehave read_from", "GET", 200, good},
		{"a file", nil, "root DIR/files\nfile_server", "GET", 200, good},
		{"a file that is missing", nil, "root DIR/none\nfile_server", "GET", 404, class{"ok", "4xx", false}},
		{"respond", nil, "respond 503", "GET", 503, failed},
		{"error", nil, "error 500", "GET", 500, noReply},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			up := test.up
			if up == nil {
				up = func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }
			}
			s := httptest.NewServer(up)
			t.Cleanup(s.Close)
			use := test.use
			if use == "" {
				use = "reverse_proxy UP"
			}
			files := t.TempDir()
			if err := os.WriteFile(filepath.Join(files, "index.html"), []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
				t.Fatal(err)
			}
			use = strings.ReplaceAll(use, "DIR/files", files)
			c := serve(t, strings.Replace(proxied, "USE", use, 1), onlyAlice, map[string]string{"UP": host(s), "DEAD": freeAddress(t)})
			req, _ := http.NewRequest(test.method, c.url(0)+"/", nil)
			req.Header.Set("X-User-ID", "alice")
			resp, err := client.Do(req)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			switch {
			case test.status == 0 && err == nil:
				t.Errorf("status %d, want it to break off", resp.StatusCode)
			case test.status != 0 && (err != nil || resp.StatusCode != test.status):
				t.Errorf("%v, %v, want status %d", resp, err, test.status)
			}
			c.expect(test.want)
		})
	}
}

// A failed request goes by the id that the site gives it, if it does.
func TestOutcomeRequestID(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.Header.Get("X-Request-ID"))
		w.WriteHeader(500)
	}))
	t.Cleanup(s.Close)
	c := serve(t, strings.Replace(proxied, "USE", "request_header X-Request-ID {http.request.uuid}\nreverse_proxy UP", 1),
		`{"new_ui": {"active": true, "users": ["alice"], "error_threshold": 0}}`, map[string]string{"UP": host(s)})
	id := c.get("/", "X-User-ID", "alice").header.Get("X-Got")
	if told := c.entries(1)[0].Flags["new_ui"]; id == "" || told.RequestID != id {
		t.Errorf("access log %+v, want request id %q", told, id)
	}
	if last := c.guard("new_ui").State.Trips[0].Evidence.Last; len(last) != 1 || last[0].ID != id {
		t.Errorf("evidence %+v, want request id %q", last, id)
	}
}

// With nobody left to ask, reverse_proxy answers 503 without having dialled.
func TestOutcomeOfNoUpstream(t *testing.T) {
	c := serve(t, strings.Replace(proxied, "USE", "reverse_proxy DEAD {\nfail_duration 1m\n}", 1), onlyAlice, map[string]string{"DEAD": freeAddress(t)})
	if r := c.get("/", "X-User-ID", "bob"); r.status != 502 {
		t.Fatalf("first: status %d, want 502", r.status)
	}
	if r := c.get("/", "X-User-ID", "alice"); r.status != 503 {
		t.Fatalf("second: status %d, want 503", r.status)
	}
	told := c.entries(2)[1]
	if f := told.Flags["new_ui"]; told.Status != 503 || f.Outcome != "error" || f.TTFB != nil {
		t.Errorf("access log %+v, want an error without a first byte", told)
	}
	if g := c.guard("new_ui").Guard; g.Canary.Errors != 1 || g.Control.Errors != 1 {
		t.Errorf("guard %+v, want one error each", g)
	}
}

// leave asks for a page and goes away when the upstream, or the client itself,
// says so.
func leave(t *testing.T, c *instance, when <-chan struct{}, readFirst bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", c.url(0)+"/", nil)
	req.Header.Set("X-User-ID", "alice")
	if !readFirst {
		go func() {
			<-when
			cancel()
		}()
		if resp, err := client.Do(req); err == nil {
			t.Errorf("status %d, want no answer", resp.StatusCode)
		}
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := bufio.NewReader(resp.Body).ReadByte(); err != nil {
		t.Fatal(err)
	}
}

// A client that goes away says nothing about the server, except where the
// server had failed already.
func TestOutcomeOfClientsThatLeave(t *testing.T) {
	pour := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}
	}
	tests := []struct {
		name      string
		up        func(begun chan<- struct{}) http.HandlerFunc
		use       string
		readFirst bool
		want      class
	}{
		{"before headers", func(begun chan<- struct{}) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { close(begun); <-r.Context().Done() }
		}, "reverse_proxy UP", false, class{"client_gone", "none", true}},
		{"mid-body", func(chan<- struct{}) http.HandlerFunc { return pour(200) }, "reverse_proxy UP", true, class{"client_gone", "none", true}},
		{"in the body of a 500", func(chan<- struct{}) http.HandlerFunc { return pour(500) }, "reverse_proxy UP", true, failed},
		{"before a handler that does nothing then", func(begun chan<- struct{}) http.HandlerFunc {
			awaited = begun
			return http.NotFound
		}, "misbehave await_client", false, class{"client_gone", "none", false}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			begun := make(chan struct{})
			s := httptest.NewServer(test.up(begun))
			t.Cleanup(s.Close)
			c := serve(t, strings.Replace(proxied, "USE", test.use, 1), onlyAlice, map[string]string{"UP": host(s)})
			leave(t, c, begun, test.readFirst)
			c.expect(test.want)
		})
	}
}
