package tests

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
)

// events is an upstream that streams events; the test says when, and how it
// ends: by false it breaks off.
func events(t *testing.T, more <-chan bool) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for {
			fmt.Fprint(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case on, open := <-more:
				switch {
				case !open:
					return
				case !on:
					panic(http.ErrAbortHandler)
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// An event stream counts when it begins; neither how long it lives nor how it
// ends says anything.
func TestEventStreamCountsByFirstByte(t *testing.T) {
	for _, end := range []string{"the upstream closes it", "the upstream breaks off", "the client leaves"} {
		t.Run(end, func(t *testing.T) {
			more := make(chan bool)
			c := serve(t, strings.Replace(proxied, "USE", "reverse_proxy UP", 1),
				`{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 0, "performance_baseline": 1, "performance_threshold": 0}}`,
				map[string]string{"UP": host(events(t, more))})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", c.url(0)+"/", nil)
			req.Header.Set("X-User-ID", "alice")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewReader(resp.Body)
			if line, err := lines.ReadString('\n'); line != "data: x\n" {
				t.Fatalf("%q, %v", line, err)
			}
			g := c.settled("new_ui", 1) // while it streams
			if g.Guard.Canary.Requests != 1 || g.Guard.Canary.Errors != 0 {
				t.Errorf("begun: %+v, want one good request", g.Guard)
			}
			for begun := time.Now(); time.Since(begun) < 1200*time.Millisecond; {
				more <- true
				if _, err := lines.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			switch end {
			case "the upstream closes it":
				close(more)
			case "the upstream breaks off":
				more <- false
			case "the client leaves":
				cancel()
			}
			told := c.entries(1)[0].Flags["new_ui"]
			if told.Outcome != "ok" || told.TTFB == nil || *told.TTFB > 1 {
				t.Errorf("access log %+v, want ok and the time to the first byte", told)
			}
			if g := c.guard("new_ui"); g.Status == "tripped" || g.Guard.Figures.Canary.Requests != 1 || g.Guard.Canary.Slow != 0 {
				t.Errorf("ended: %s, %+v, want it counted once", g.Status, g.Guard)
			}
		})
	}
}

// A 103 is no answer: the status, the time and our headers are the final one's.
func TestEarlyHints(t *testing.T) {
	for _, final := range []int{200, 500} {
		t.Run(fmt.Sprint(final), func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(http.StatusEarlyHints)
				time.Sleep(50 * time.Millisecond) // what the application takes
				w.Header().Set("Set-Cookie", "theirs=1")
				w.Header().Set("Vary", "Accept")
				w.WriteHeader(final)
			}))
			t.Cleanup(s.Close)
			c := serve(t, site+`
				feature_flags {
					context {
						user_id header X-User-ID
						user_id sticky
					}
				}
				feature_route new_ui {
					on {
						reverse_proxy UP
					}
				}
			}`, `{"new_ui": {"active": true, "percentage_rollout": 100, "variants": {"a": {"weight": 50}, "b": {"weight": 50}}}}`, map[string]string{"UP": host(s)})
			hints := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
				hints++
				return nil
			}})
			req, _ := http.NewRequestWithContext(ctx, "GET", c.url(0)+"/", nil)
			r := do(t, client, req)
			if r.status != final || hints != 1 {
				t.Errorf("status %d after %d hints, want %d after one", r.status, hints, final)
			}
			ids := 0
			for _, line := range r.header["Set-Cookie"] {
				if strings.HasPrefix(line, "feature_flags_id=") {
					ids++
				}
			}
			if ids != 1 || !slices.Contains(r.header["Set-Cookie"], "theirs=1") {
				t.Errorf("Set-Cookie: %q, want the id once beside the upstream's own", r.header["Set-Cookie"])
			}
			if got := varies(r.header); !slices.Equal(got, []string{"accept", "cookie", "x-user-id"}) {
				t.Errorf("Vary: %q", got)
			}
			told := c.entries(1)[0].Flags["new_ui"]
			outcome := map[int]string{200: "ok", 500: "error"}[final]
			if told.Outcome != outcome || told.TTFB == nil || *told.TTFB < 0.05 {
				t.Errorf("access log %+v, want %s and the time to the final status", told, outcome)
			}
		})
	}
}

// varies gives the members of Vary in lower case, sorted; repeated ones stay.
func varies(h http.Header) (out []string) {
	for _, line := range h.Values("Vary") {
		for part := range strings.SplitSeq(line, ",") {
			out = append(out, strings.ToLower(strings.TrimSpace(part)))
		}
	}
	slices.Sort(out)
	return out
}
