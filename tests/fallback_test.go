package tests

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rescued is a site with a fallback; FALLBACK are its arguments and block, ON the
// canary's way and BEFORE goes before the route.
const rescued = site + `
	feature_flags {
		context {
			user_id header X-User-ID
		}
		HEADERS
	}
	BEFORE
	feature_route new_ui {
		on {
			ON
		}
		off {
			reverse_proxy OLD
		}
		fallback FALLBACK
	}
}
`

// arrived is what an upstream was sent.
type arrived struct {
	method, uri string
	header      http.Header
	size        int64
	sum         string // of the body
}

// ledger is an upstream that remembers what it was sent.
type ledger struct {
	*httptest.Server
	mu   sync.Mutex
	seen []arrived
}

// keep starts a ledger. It answers with its name once it has read the whole body,
// unless handle does.
func keep(t *testing.T, name string, handle http.HandlerFunc) *ledger {
	l := &ledger{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := arrived{method: r.Method, uri: r.RequestURI, header: r.Header.Clone()}
		if handle == nil {
			hash := sha256.New()
			a.size, _ = io.Copy(hash, r.Body)
			a.sum = hex.EncodeToString(hash.Sum(nil))
		}
		l.mu.Lock()
		l.seen = append(l.seen, a)
		l.mu.Unlock()
		if handle != nil {
			handle(w, r)
			return
		}
		w.Header().Set("X-By", name)
		fmt.Fprint(w, name)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *ledger) all() []arrived {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]arrived(nil), l.seen...)
}

// withFallback starts the site with a canary that does as told.
func withFallback(t *testing.T, canary http.HandlerFunc, words map[string]string) (c *instance, on, off *ledger) {
	t.Helper()
	on, off = keep(t, "new", canary), keep(t, "old", nil)
	all := map[string]string{"FALLBACK": "", "ON": "reverse_proxy NEW", "BEFORE": "", "HEADERS": ""}
	for k, v := range words {
		all[k] = v
	}
	text := rescued
	for _, k := range []string{"FALLBACK", "ON", "BEFORE", "HEADERS"} { // they hold other words
		text = strings.ReplaceAll(text, k, all[k])
		delete(all, k)
	}
	all["NEW"], all["OLD"], all["DEAD"] = host(on.Server), host(off.Server), freeAddress(t)
	return serve(t, text, `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0}, "other": {"active": true}}`, all), on, off
}

func hangs(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// What a canary's way can do before it answers, and what its user sees: the answer
// of off and nothing else. The canary's failure counts all the same.
func TestFallback(t *testing.T) {
	tests := []struct {
		name     string
		canary   http.HandlerFunc
		on       string // instead of a plain proxy
		fallback string
		answered bool // whether the canary's failure has a status line
	}{
		{"500", fails, "", "", true},
		{"503 with headers of its own", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-By", "new")
			w.Header().Set("X-Only", "new")
			w.Header().Set("Set-Cookie", "new=1")
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "new is broken")
		}, "", "", true},
		{"hints, then 500", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</new.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusInternalServerError)
		}, "", "", true},
		{"500 with a body of many megabytes", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			for range 1000 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "", "", true},
		{"500 whose body never ends", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "", "", true},
		{"500 and broken off", breaksOff("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nhalf"), "", "", true},
		{"refused", nil, "reverse_proxy DEAD", "", false},
		{"reset before the first byte", breaksOff(""), "", "", false},
		{"no HTTP", breaksOff("SSH-2.0-OpenSSH_9\r\n"), "", "", false},
		{"hangs until the proxy's limit", hangs, "reverse_proxy NEW {\ntransport http {\nresponse_header_timeout 100ms\n}\n}", "", false},
		{"hangs", hangs, "", "{\nafter 100ms\n}", false},
		{"hangs, and is tried again and again", hangs, "reverse_proxy NEW {\nlb_try_duration 10s\n}", "{\nafter 100ms\n}", false},
		{"a handler's error", nil, "error 503", "", false},
		{"an answer by Caddy", nil, "respond 502", "", true},
		{"a panic", nil, "misbehave panic", "", false},
		{"404, when asked to", http.NotFound, "", "{\non 404 5xx\n}", true},
		{"after rewriting all there is", fails, "rewrite * /new{uri}?more=1\nrequest_header X-New 1\nrequest_header -X-Kept\nmethod POST\nvars way new\nheader X-Leak 1\nreverse_proxy NEW {\nheader_up Host new.example\n}", "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			words := map[string]string{"FALLBACK": test.fallback}
			if test.on != "" {
				words["ON"] = test.on
			}
			c, _, off := withFallback(t, test.canary, words)
			begun := time.Now()
			r := c.get("/page?q=1", "X-User-ID", "alice", "X-Kept", "1", "X-Feature-Fallback", "forged", "Connection", "X-Feature-Fallback, X-Feature-New-Ui")
			if r.status != http.StatusOK || r.body != "old" || strings.Join(r.header["X-By"], ",") != "old" {
				t.Fatalf("%d %q %v, want off's answer", r.status, r.body, r.header)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			for _, name := range []string{"X-Only", "Set-Cookie", "Retry-After", "Link", "X-Leak"} {
				if r.header[name] != nil {
					t.Errorf("%s of the canary: %q", name, r.header[name])
				}
			}
			if got := varies(r.header); len(got) != 1 || got[0] != "x-user-id" {
				t.Errorf("Vary %q", got)
			}
			if via := r.header["Via"]; len(via) != 1 {
				t.Errorf("Via: %q, want one", via)
			}
			seen := off.all()
			if len(seen) != 1 {
				t.Fatalf("off was asked %d times", len(seen))
			}
			got := seen[0]
			if got.method != "GET" || got.uri != "/page?q=1" || got.header.Get("X-New") != "" || got.header.Get("X-Kept") != "1" {
				t.Errorf("off was sent %s %s %v, want the request as it came", got.method, got.uri, got.header)
			}
			if v := got.header["X-Feature-Fallback"]; len(v) != 1 || v[0] != "new_ui" {
				t.Errorf("X-Feature-Fallback: %q", v)
			}
			if v := got.header["X-Feature-New-Ui"]; len(v) != 1 || v[0] != "off" {
				t.Errorf("X-Feature-New-Ui: %q, want off", v)
			}
			g := c.settled("new_ui", 1)
			if f := g.Guard.Figures.Canary; f.Requests != 1 || f.Errors != 1 {
				t.Errorf("the canary's figures %+v, want one failure", f)
			}
			e := c.entries(1)[0]
			told := e.Flags["new_ui"]
			if e.Status != 200 || told.Variant != "on" || told.Outcome != "error" && told.Outcome != "aborted" || told.Fallback != "answered" || (told.TTFB != nil) != test.answered {
				t.Errorf("access log %d %+v", e.Status, told)
			}
			if other := e.Flags["other"]; other.Outcome != "ok" {
				t.Errorf("the other flag's outcome is %q, want that of the answer", other.Outcome)
			}
			if got := c.metric(`caddy_feature_flags_fallbacks_total{flag="new_ui",result="answered"}`); got == "" {
				t.Error("no metric")
			}
		})
	}
}

// The application is told that the flag is off, in each way of telling.
func TestFallbackTellsOff(t *testing.T) {
	for headers, want := range map[string]string{
		"headers list X-Features":         "new_ui=?0, other",
		"headers X-Feature- on_only":      "",
		"headers list X-Features\n#twice": "new_ui=?0, other",
	} {
		before := ""
		if strings.Contains(headers, "twice") {
			before = "feature_flags {\nheaders X-Second-\n}"
		}
		c, _, off := withFallback(t, fails, map[string]string{"HEADERS": headers, "BEFORE": before, "ON": "reverse_proxy NEW"})
		if r := c.get("/", "X-User-ID", "alice"); r.body != "old" {
			t.Fatalf("%d %q", r.status, r.body)
		}
		h := off.all()[0].header
		if got := h.Get("X-Features"); got != want {
			t.Errorf("X-Features: %q, want %q", got, want)
		}
		if got := h["X-Feature-New-Ui"]; got != nil {
			t.Errorf("X-Feature-New-Ui: %q", got)
		}
		if before != "" && h.Get("X-Second-New-Ui") != "off" {
			t.Errorf("the second handler's header: %q", h.Get("X-Second-New-Ui"))
		}
	}
}

// What comes after the route is gone through anew, with its groups of routes.
func TestFallbackGoesOnBehindTheRoute(t *testing.T) {
	old := keep(t, "old", nil)
	c := serve(t, site+`
		feature_flags {
			context {
				user_id header X-User-ID
			}
		}
		route {
			vars way old
			feature_route new_ui {
				on {
					vars way new
					uri strip_prefix /x
				}
				fallback
			}
			handle_path /x/* {
				reverse_proxy OLD {
					header_up X-Way {vars.way}
					header_up X-Flag {http.feature_flags.new_ui}:{http.feature_flags.new_ui.reason}
				}
			}
			handle {
				error 500
			}
		}
	}`, onlyAlice, map[string]string{"OLD": host(old.Server)})
	if r := c.get("/x/page", "X-User-ID", "alice"); r.status != 200 || r.body != "old" {
		t.Fatalf("%d %q", r.status, r.body)
	}
	got := old.all()[0]
	if got.uri != "/page" || got.header.Get("X-Way") != "old" || got.header.Get("X-Flag") != "off:DEFAULT" {
		t.Errorf("off was sent %s %v", got.uri, got.header)
	}
}

// A site without a feature_flags handler: the decision is by the sticky id.
func TestFallbackAlone(t *testing.T) {
	old := keep(t, "old", nil)
	c := serve(t, site+`
		feature_route new_ui {
			on {
				error 502
			}
			off {
				reverse_proxy OLD
			}
			fallback
		}
	}`, `{"new_ui": {"active": true, "guard": false}}`, map[string]string{"OLD": host(old.Server)})
	if r := c.get("/"); r.status != 200 || r.body != "old" {
		t.Fatalf("%d %q", r.status, r.body)
	}
	if f := c.settled("new_ui", 1).Guard.Figures.Canary; f.Requests != 1 || f.Errors != 1 {
		t.Errorf("%+v, want one failure", f)
	}
}

// The canary fails, and the client sees it: sending the request again could do
// harm, or cannot be done.
func TestFallbackRefused(t *testing.T) {
	dies := breaksOff("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
	tests := []struct {
		name, method, fallback string
		canary                 http.HandlerFunc
		header                 []string
		body                   int // bytes; negative: without saying how many
		result                 string
	}{
		{"POST", "POST", "", fails, nil, 0, "method"},
		{"POST with a body", "POST", "", fails, nil, 10, "method"},
		{"PUT", "PUT", "", fails, nil, 10, "method"},
		{"POST with an empty key", "POST", "", fails, []string{"Idempotency-Key", ""}, 10, "method"},
		{"a method that is not listed", "HEAD", "{\nmethods GET\n}", fails, nil, 0, "method"},
		{"too large a body", "POST", "all", fails, nil, 64<<10 + 1, "body"},
		{"too large a body, as it turns out", "POST", "all", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusInternalServerError)
		}, nil, -(64<<10 + 1), "body"},
		{"any body where none is kept", "POST", "all {\nbody off\n}", fails, nil, 1, "body"},
		{"an upgrade", "GET", "", fails, []string{"Upgrade", "websocket", "Connection", "Upgrade"}, 0, "method"},
		{"a status that is not listed", "GET", "{\non 502\n}", fails, nil, 0, ""},
		{"broken off in the body", "GET", "", dies, nil, 0, ""},
		{"no budget", "GET", "{\nbudget 0% 0\n}", fails, nil, 0, "budget"},
		{"hanging, without a budget", "GET", "{\nbudget 0% 0\nafter 50ms\n}", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(200 * time.Millisecond)
			w.WriteHeader(http.StatusInternalServerError)
		}, nil, 0, "budget"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, on, off := withFallback(t, test.canary, map[string]string{"FALLBACK": test.fallback})
			var body io.Reader
			if test.body > 0 {
				body = bytes.NewReader(make([]byte, test.body))
			} else if test.body < 0 {
				body = io.MultiReader(bytes.NewReader(make([]byte, -test.body)))
			}
			req, _ := http.NewRequest(test.method, c.url(0)+"/", body)
			req.Header.Set("X-User-ID", "alice")
			for i := 0; i+1 < len(test.header); i += 2 {
				req.Header.Set(test.header[i], test.header[i+1])
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if broken := strings.HasPrefix(test.name, "broken"); (err != nil) != broken || !broken && resp.StatusCode != 500 {
				t.Errorf("%d, %v, want the canary's own failure", resp.StatusCode, err)
			}
			if len(on.all()) != 1 || len(off.all()) != 0 {
				t.Errorf("the canary was asked %d times and off %d, want 1 and 0", len(on.all()), len(off.all()))
			}
			if got := c.entries(1)[0].Flags["new_ui"].Fallback; got != test.result {
				t.Errorf("access log: fallback %q, want %q", got, test.result)
			}
		})
	}
}

// Bodies reach off as they came.
func TestFallbackReplaysBodies(t *testing.T) {
	early := func(w http.ResponseWriter, r *http.Request) { // without having read the body
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusInternalServerError)
	}
	halfway := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		w.WriteHeader(http.StatusInternalServerError)
	}
	whole := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusInternalServerError)
	}
	for name, canary := range map[string]http.HandlerFunc{"unread": early, "half read": halfway, "read": whole, "read, and hanging": hangs} {
		for _, slow := range []bool{false, true} {
			for _, size := range []int{1, 30_000, 64 << 10} {
				for _, sized := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s, slow %t, %d bytes, announced %t", name, slow, size, sized), func(t *testing.T) {
						c, on, off := withFallback(t, canary, map[string]string{"FALLBACK": "{\nafter 400ms\n}"})
						body := make([]byte, size)
						for i := range body {
							body[i] = byte(rand.IntN(256))
						}
						sum := sha256.Sum256(body)
						var from io.Reader = bytes.NewReader(body)
						if slow {
							from = &drip{from: from, parts: 10, pause: 10 * time.Millisecond, size: size}
						}
						req, _ := http.NewRequest("POST", c.url(0)+"/", io.MultiReader(from))
						if sized {
							req.ContentLength = int64(size)
						}
						req.Header.Set("X-User-ID", "alice")
						req.Header.Set("Idempotency-Key", "k1")
						r := do(t, client, req)
						if r.status != 200 || r.body != "old" {
							t.Fatalf("%d %q, want off's answer", r.status, r.body)
						}
						got := off.all()
						if len(got) != 1 || got[0].size != int64(size) || got[0].sum != hex.EncodeToString(sum[:]) {
							t.Errorf("off was sent %d bytes, want the %d that the client sent", got[0].size, size)
						}
						if n := len(on.all()); n != 1 {
							t.Errorf("the canary was asked %d times", n)
						}
					})
				}
			}
		}
	}
}

// drip gives its bytes slowly.
type drip struct {
	from  io.Reader
	parts int
	pause time.Duration
	size  int
}

func (d *drip) Read(p []byte) (int, error) {
	time.Sleep(d.pause)
	return d.from.Read(p[:min(len(p), d.size/d.parts+1)])
}

// Uploads of any size stream through; memory does not grow with them.
func TestFallbackMemoryIsFlat(t *testing.T) {
	var most atomic.Uint64
	measure := func() {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		for old := most.Load(); m.HeapAlloc > old && !most.CompareAndSwap(old, m.HeapAlloc); old = most.Load() {
		}
	}
	const size = 50 << 20
	c, on, off := withFallback(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.CopyN(io.Discard, r.Body, size/2)
		measure()
		m, _ := io.Copy(io.Discard, r.Body)
		if n+m != size {
			t.Errorf("%d bytes arrived, want %d", n+m, size)
		}
		w.WriteHeader(http.StatusInternalServerError)
	}, map[string]string{"FALLBACK": "all"})
	measure()
	before := most.Load()
	var uploads sync.WaitGroup
	for range 4 {
		uploads.Go(func() {
			req, _ := http.NewRequest("POST", c.url(0)+"/", io.LimitReader(zeros{}, size))
			req.Header.Set("X-User-ID", "alice")
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 500 {
				t.Errorf("status %d, want the canary's own", resp.StatusCode)
			}
		})
	}
	uploads.Wait()
	if len(on.all()) != 4 || len(off.all()) != 0 {
		t.Errorf("the canary was asked %d times and off %d, want 4 and 0", len(on.all()), len(off.all()))
	}
	grown := int64(most.Load()) - int64(before)
	t.Logf("4 uploads of 50 MB: the heap grew by %d KiB", grown>>10)
	if grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes for 4 uploads of %d", grown, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Nobody is asked for a client that has left.
func TestFallbackNotForClientsThatLeft(t *testing.T) {
	for _, after := range []string{"", "{\nafter 10s\n}"} {
		begun := make(chan struct{}, 1)
		c, _, off := withFallback(t, func(w http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			<-r.Context().Done()
		}, map[string]string{"FALLBACK": after})
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", c.url(0)+"/", nil)
		req.Header.Set("X-User-ID", "alice")
		go func() {
			<-begun
			cancel()
		}()
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			t.Fatalf("status %d", resp.StatusCode)
		}
		told := c.entries(1)[0].Flags["new_ui"]
		if told.Outcome != "client_gone" {
			t.Errorf("outcome %q", told.Outcome)
		}
		if n := len(off.all()); n != 0 {
			t.Errorf("off was asked %d times", n)
		}
	}
}

// A dead canary of everybody adds no more to off than the budget.
func TestFallbackBudget(t *testing.T) {
	c, on, off := withFallback(t, fails, map[string]string{"FALLBACK": "{\nbudget 20% 20\n}"})
	begun := time.Now()
	answered, failed := 0, 0
	for i := 0; time.Since(begun) < 2*time.Second; i++ {
		if r := c.get("/", "X-User-ID", "alice"); r.status == 200 {
			answered++
		} else {
			failed++
		}
		time.Sleep(5 * time.Millisecond)
	}
	// A second's budget at once, and then as time passes.
	if limit := 20 * 3; answered < 20 || answered > limit || failed == 0 {
		t.Errorf("%d answered by off and %d not, want 20 to %d and the rest", answered, failed, limit)
	}
	if len(off.all()) != answered || len(on.all()) != answered+failed {
		t.Errorf("off was asked %d times, the canary %d", len(off.all()), len(on.all()))
	}
	if c.metric(`caddy_feature_flags_fallbacks_total{flag="new_ui",result="budget"}`) == "" {
		t.Error("no metric")
	}
}

// The canary fails under load, in each way: nobody notices, old is hardly busier,
// and the flag trips.
func TestFallbackUnderLoad(t *testing.T) {
	const requests, rate = 10_000, 1000.0
	for _, test := range []struct {
		name   string
		canary http.HandlerFunc // nil: it is not there any more
		block  string
	}{
		{"500", fails, ""},
		{"refuses", nil, ""},
		{"resets", breaksOff(""), ""},
		{"hangs", hangs, "{\nafter 2s\n}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var since atomic.Int64 // when the canary began to fail; 0: not yet
			var posts sync.Map     // path → how often an upstream saw it
			count := func(r *http.Request) {
				if r.Method == "POST" {
					n, _ := posts.LoadOrStore(r.URL.Path, new(atomic.Int64))
					n.(*atomic.Int64).Add(1)
				}
			}
			var mu sync.Mutex
			own, rescuedBy := map[int64]int{}, map[int64]int{} // by tenths of a second
			old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				count(r)
				mu.Lock()
				if now := time.Now().UnixMilli() / 100; r.Header.Get("X-Feature-Fallback") != "" {
					rescuedBy[now]++
				} else {
					own[now]++
				}
				mu.Unlock()
				fmt.Fprint(w, "old")
			}))
			t.Cleanup(old.Close)
			canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				count(r)
				if since.Load() == 0 || test.canary == nil {
					fmt.Fprint(w, "old")
				} else {
					test.canary(w, r)
				}
			}))
			t.Cleanup(canary.Close)
			text := strings.NewReplacer("FALLBACK", test.block, "BEFORE", "", "HEADERS", "", "\t\tON\n", "\t\treverse_proxy NEW\n", "log site", "").Replace(rescued)
			c := serve(t, text, `{"new_ui": {"active": true, "percentage_rollout": 10, "guard": {"latency": {"warm_up": "1s"}}}}`, map[string]string{
				"NEW": host(canary), "OLD": host(old),
			})
			trips := c.stream("")
			url := c.url(0)
			via := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 500}}
			defer via.CloseIdleConnections()
			var bad, lost atomic.Int64
			var asking sync.WaitGroup
			slots := make(chan struct{}, 500) // a machine that is too slow for the rate gets a lower one
			begun := time.Now()
			for i := range requests {
				if ahead := time.Duration(float64(i)/rate*1e9) - time.Since(begun); ahead > 0 {
					time.Sleep(ahead)
				}
				if i == requests/5 {
					since.Store(time.Now().UnixNano())
					if test.canary == nil {
						canary.Listener.Close()
						canary.CloseClientConnections()
					}
				}
				slots <- struct{}{}
				asking.Go(func() {
					defer func() { <-slots }()
					method, path, limit := "GET", "/", 30*time.Second
					if i%20 == 0 {
						method, path, limit = "POST", fmt.Sprintf("/%d", i), 5*time.Second
					}
					ctx, cancel := context.WithTimeout(context.Background(), limit)
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, method, url+path, nil)
					if err != nil {
						panic(err)
					}
					req.Header.Set("X-User-ID", fmt.Sprintf("u%d", rand.IntN(3000)))
					resp, err := via.Do(req)
					if err != nil && method == "POST" {
						return // it hangs with the canary
					}
					if err != nil {
						lost.Add(1)
						return
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if method == "GET" && (resp.StatusCode != 200 || string(body) != "old") {
						bad.Add(1)
					}
				})
			}
			asking.Wait()
			if bad.Load() > 0 || lost.Load() > 0 {
				t.Errorf("of %d requests %d were answered badly and %d not at all", requests, bad.Load(), lost.Load())
			}
			posts.Range(func(path, n any) bool {
				if n := n.(*atomic.Int64).Load(); n > 1 {
					t.Errorf("POST %s was sent %d times", path, n)
				}
				return true
			})
			tripped := next(t, trips, "tripped")
			mu.Lock() // a request may be under way whose client has left
			defer mu.Unlock()
			// Old's rate, of any second, against what it has of its own.
			var most float64
			answered := 0
			for from := begun.UnixMilli() / 100; from < time.Now().UnixMilli()/100; from++ {
				a, b := 0, 0
				for k := range int64(10) {
					a, b = a+own[from+k], b+rescuedBy[from+k]
				}
				if a > 500 {
					most = max(most, float64(a+b)/float64(a))
				}
				answered += rescuedBy[from]
			}
			t.Logf("tripped %v after the onset; %d of %d answered for the canary; in a second at most %.2f of old's own", tripped.At.Sub(time.Unix(0, since.Load())).Round(time.Millisecond), answered, requests, most)
			if most > 1.2 || answered == 0 {
				t.Errorf("old had %.2f of its own rate in a second, %d requests of the canary; want at most 1.2", most, answered)
			}
		})
	}
}

// What is a conversation passes through a route with a fallback as it does without.
func TestFallbackLeavesConversationsAlone(t *testing.T) {
	t.Run("WebSocket", func(t *testing.T) {
		c, _, off := withFallback(t, func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			_ = rw.Flush()
			line, _ := rw.ReadString('\n')
			fmt.Fprint(rw, "heard "+line)
			_ = rw.Flush()
		}, map[string]string{"FALLBACK": "all {\nafter 1s\n}"})
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.url(0), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-User-ID: alice\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%v, %v", resp, err)
		}
		time.Sleep(1200 * time.Millisecond) // longer than `after`
		fmt.Fprint(conn, "hello\n")
		if line, err := in.ReadString('\n'); line != "heard hello\n" {
			t.Errorf("%q, %v", line, err)
		}
		if n := len(off.all()); n != 0 {
			t.Errorf("off was asked %d times", n)
		}
	})
	t.Run("events", func(t *testing.T) {
		more := make(chan bool)
		up := events(t, more)
		c, _, off := withFallback(t, nil, map[string]string{"FALLBACK": "{\nafter 1s\n}", "ON": "reverse_proxy " + host(up)})
		req, _ := http.NewRequest("GET", c.url(0)+"/", nil)
		req.Header.Set("X-User-ID", "alice")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for range 4 {
			if line, err := lines.ReadString('\n'); line != "data: x\n" {
				t.Fatalf("%q, %v", line, err)
			}
			_, _ = lines.ReadString('\n')
			time.Sleep(300 * time.Millisecond) // longer than `after`, together
			more <- true
		}
		close(more)
		c.entries(1)
		if n := len(off.all()); n != 0 {
			t.Errorf("off was asked %d times", n)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		// A stream in both directions: the answer begins before the request has ended.
		up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.WriteHeader(http.StatusOK)
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					break
				}
				fmt.Fprint(w, "heard "+line)
				_ = http.NewResponseController(w).Flush()
			}
			w.Header().Set("Grpc-Status", "14")
		}))
		up.Config.Protocols = new(http.Protocols)
		up.Config.Protocols.SetUnencryptedHTTP2(true)
		up.Start()
		t.Cleanup(up.Close)
		c, _, off := withFallback(t, nil, map[string]string{"FALLBACK": "{\nafter 100ms\n}", "ON": "reverse_proxy h2c://" + host(up)})
		body, out := io.Pipe()
		req, _ := http.NewRequest("POST", c.url(0)+"/", body)
		req.Header.Set("X-User-ID", "alice")
		req.Header.Set("Content-Type", "application/grpc")
		go func() { fmt.Fprint(out, "one\n") }()
		resp, err := h2c(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		in := bufio.NewReader(resp.Body)
		for _, word := range []string{"one\n", "two\n", "three\n"} {
			if line, err := in.ReadString('\n'); line != "heard "+word {
				t.Fatalf("%q, %v", line, err)
			}
			time.Sleep(60 * time.Millisecond)
			if word != "three\n" {
				fmt.Fprint(out, map[string]string{"one\n": "two\n", "two\n": "three\n"}[word])
			}
		}
		out.Close()
		if _, err := io.ReadAll(in); err != nil || resp.Trailer.Get("Grpc-Status") != "14" {
			t.Errorf("trailers %v, %v", resp.Trailer, err)
		}
		if told := c.entries(1)[0].Flags["new_ui"]; told.Outcome != "error" || told.Fallback != "" {
			t.Errorf("access log %+v, want a server's error that nobody could mend", told)
		}
		if n := len(off.all()); n != 0 {
			t.Errorf("off was asked %d times", n)
		}
	})
}
