package tests

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mirrorSite is a site whose requests are all copied; MIRROR are the option's
// arguments and block.
const mirrorSite = site + `
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	@numbered path_regexp n ^/(\d+)
	vars @numbered number {re.n.1}
	feature_route new_ui {
		on {
			rewrite * /new{uri}
			reverse_proxy NEW {
				header_up X-Number {re.n.1}{vars.number}
				header_up X-Original {http.request.orig_uri}
			}
		}
		off {
			request_header X-Old 1
			reverse_proxy OLD
		}
		mirror MIRROR
	}
}
`

func mirrored(t *testing.T, canary http.HandlerFunc, words map[string]string) (c *instance, on, off *ledger) {
	t.Helper()
	on, off = keep(t, "new", canary), keep(t, "old", nil)
	all := map[string]string{"MIRROR": "100%", "NEW": host(on.Server), "OLD": host(off.Server)}
	for k, v := range words {
		all[k] = v
	}
	return serve(t, mirrorSite, `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0}, "other": {"active": true}}`, all), on, off
}

// mirrorResults are the API's figures of copies, once there are n.
func (c *instance) mirrorResults(n int) (results map[string]int, last []any) {
	c.t.Helper()
	eventually(c.t, 8*time.Second, fmt.Sprintf("%d copies", n), func() bool {
		results, last = map[string]int{}, nil
		figures, _ := c.api("GET", "flags/new_ui", "", 200)["mirror"].(map[string]any)
		if figures == nil {
			return n == 0
		}
		last, _ = figures["last_different"].([]any)
		total := 0
		for k, v := range figures["results"].(map[string]any) {
			if results[k] = int(v.(float64)); results[k] == 0 {
				delete(results, k)
			}
			total += results[k]
		}
		return total >= n
	})
	return results, last
}

// What the canary gets, and what the client does not notice.
func TestMirror(t *testing.T) {
	c, on, off := mirrored(t, nil, nil)
	r := c.get("/17?q=1", "X-User-ID", "bob", "X-Kept", "1", "X-Feature-Mirror", "forged", "Connection", "X-Feature-Mirror")
	if r.status != 200 || r.body != "old" || r.header.Get("X-By") != "old" {
		t.Fatalf("%d %q %v, want off's answer", r.status, r.body, r.header)
	}
	results, _ := c.mirrorResults(1)
	if len(results) != 1 || results["same"] != 1 {
		t.Errorf("%v, want one the same", results)
	}
	got, real := on.all()[0], off.all()[0]
	if got.method != "GET" || got.uri != "/new/17?q=1" || got.header.Get("X-Number") != "1717" || got.header.Get("X-Original") != "/17?q=1" ||
		got.header.Get("X-Kept") != "1" || got.header.Get("X-Old") != "" || got.header.Get("X-User-Id") != "bob" {
		t.Errorf("the copy is %s %s %v", got.method, got.uri, got.header)
	}
	for name, want := range map[string][2]string{
		"X-Feature-Mirror": {"new_ui", ""}, "X-Feature-New-Ui": {"on", "off"}, "X-Feature-Other": {"on", "on"},
	} {
		if g, r := got.header.Get(name), real.header.Get(name); g != want[0] || r != want[1] {
			t.Errorf("%s: %q and %q, want %q", name, g, r, want)
		}
	}
	if real.uri != "/17?q=1" || real.header.Get("X-Old") != "1" {
		t.Errorf("the request is %s %v", real.uri, real.header)
	}
	if g := c.guard("new_ui"); g.Guard.Figures.Canary.Requests != 0 || g.Guard.Figures.Control.Requests != 1 {
		t.Errorf("%+v, want the copy to count for nothing", g.Guard.Figures)
	}
	if told := c.entries(1)[0].Flags["new_ui"]; told.Variant != "off" || told.MirrorID == "" {
		t.Errorf("access log %+v", told)
	}
	if v := c.metric(`caddy_feature_flags_mirror_total{flag="new_ui",result="same"}`); v != "1" {
		t.Errorf("metric %q", v)
	}
	if c.metric(`caddy_feature_flags_mirror_first_byte_seconds{flag="new_ui",of="copy",quantile="0.5"}`) == "" {
		t.Error("no metric of times")
	}
}

// What the canary does with a copy is compared and shown, and nothing more.
func TestMirrorCompares(t *testing.T) {
	for _, test := range []struct {
		name   string
		canary http.HandlerFunc
		words  map[string]string
		want   string
	}{
		{"500", fails, nil, "status"},
		{"404", http.NotFound, nil, "status"},
		{"another body, not compared", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "another") }, nil, "same"},
		{"another body", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "another") }, map[string]string{"MIRROR": "100% {\nbody\n}"}, "body"},
		{"the same body", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "old") }, map[string]string{"MIRROR": "100% {\nbody\n}"}, "same"},
		{"refused", nil, map[string]string{"NEW": "127.0.0.1:1"}, "status"},
		{"reset", breaksOff(""), nil, "status"},
		{"broken off", breaksOff("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), nil, "failed"},
		{"hangs", hangs, map[string]string{"MIRROR": "100% {\ntimeout 1s\n}"}, "failed"},
		{"hangs in the middle", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, map[string]string{"MIRROR": "100% {\ntimeout 1s\n}"}, "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _, _ := mirrored(t, test.canary, test.words)
			begun := time.Now()
			if r := c.get("/", "X-User-ID", "bob"); r.status != 200 || r.body != "old" || time.Since(begun) > 900*time.Millisecond {
				t.Fatalf("%d %q after %v", r.status, r.body, time.Since(begun))
			}
			results, last := c.mirrorResults(1)
			if len(results) != 1 || results[test.want] != 1 {
				t.Errorf("%v, want %s", results, test.want)
			}
			if (len(last) == 1) != (test.want != "same") {
				t.Fatalf("last different: %v", last)
			}
			if id := c.entries(1)[0].Flags["new_ui"].MirrorID; len(last) == 1 && last[0].(map[string]any)["id"] != id {
				t.Errorf("%v, want the id %s of the access log", last[0], id)
			}
		})
	}
}

// Only what is safe to ask twice is, and only for whom the flag is off.
func TestMirrorLeavesOut(t *testing.T) {
	c, on, off := mirrored(t, nil, nil)
	ask := func(method, user, body string, header ...string) {
		t.Helper()
		req, _ := http.NewRequest(method, c.url(0)+"/", strings.NewReader(body))
		req.Header.Set("X-User-ID", user)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		if r := do(t, client, req); r.status != 200 {
			t.Fatalf("%s: %d", method, r.status)
		}
	}
	ask("POST", "bob", "x")
	ask("PUT", "bob", "x")
	ask("DELETE", "bob", "")
	ask("GET", "bob", "with a body")
	ask("OPTIONS", "bob", "")
	ask("GET", "alice", "") // goes to the canary itself
	if n := len(on.all()); n != 1 {
		t.Errorf("the canary was asked %d times, want alice's request only", n)
	}
	ask("HEAD", "bob", "")
	ask("GET", "bob", "")
	c.mirrorResults(2)
	if n := len(on.all()); n != 3 {
		t.Errorf("the canary was asked %d times, want alice's request and two copies", n)
	}
	c.api("POST", "flags/new_ui/disable", "", 200)
	ask("GET", "bob", "")
	ask("GET", "alice", "")
	time.Sleep(200 * time.Millisecond)
	if n := len(on.all()); n != 3 {
		t.Errorf("a disabled flag's canary was asked")
	}
	if n := len(off.all()); n != 9 {
		t.Errorf("off was asked %d times", n)
	}
}

// Copies are bounded in number, and dropped rather than queued; a reload ends them.
func TestMirrorIsBounded(t *testing.T) {
	var asked atomic.Int64
	c, _, _ := mirrored(t, func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	}, map[string]string{"MIRROR": "100% {\ntimeout 1m\nconcurrency 3\n}"})
	for range 50 {
		if r := c.get("/", "X-User-ID", "bob"); r.status != 200 {
			t.Fatalf("%d", r.status)
		}
	}
	results, _ := c.mirrorResults(47)
	if results["dropped"] != 47 || asked.Load() > 3 {
		t.Errorf("%v, %d asked, want 3 sent and 47 dropped", results, asked.Load())
	}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	c.get("/", "X-User-ID", "bob")
	eventually(t, 5*time.Second, "the new config sends copies", func() bool { return asked.Load() >= 4 })
}

// A trip shows what copies of requests had come to.
func TestMirrorInEvidence(t *testing.T) {
	c, _, _ := mirrored(t, fails, nil)
	c.write("features.json", `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 1}}`)
	for range 3 {
		c.get("/", "X-User-ID", "bob")
	}
	c.mirrorResults(3)
	eventually(t, 5*time.Second, "it does not trip", func() bool {
		c.get("/", "X-User-ID", "alice")
		return c.guard("new_ui").State.Tripped
	})
	trips := c.api("GET", "flags/new_ui", "", 200)["state"].(map[string]any)["trips"].([]any)
	evidence := trips[0].(map[string]any)["evidence"].(map[string]any)
	mirror, _ := evidence["mirror"].(map[string]any)
	if mirror == nil || mirror["results"].(map[string]any)["status"] != 3.0 {
		t.Errorf("evidence %v", evidence)
	}
}

// Under load, with copies that hang or fail, what clients get and how long they
// wait is what it is without. Medians of runs in turns: machines are noisy.
func TestMirrorDelaysNobody(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Millisecond)
		fmt.Fprint(w, "fine")
	}))
	t.Cleanup(up.Close)
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(stuck.Close)
	var text strings.Builder
	var sites []string
	for _, mirror := range []string{"", "mirror 5%", "mirror 100%"} {
		for _, canary := range []string{"GOOD", "STUCK"} {
			sites = append(sites, "http://"+freeAddress(t))
			fmt.Fprintf(&text, "%s {\n\tfeature_flags\n\tfeature_route new_ui {\n\ton {\nreverse_proxy %s\n}\noff {\nreverse_proxy GOOD\n}\n%s\n}\n}\n", sites[len(sites)-1], canary, mirror)
		}
	}
	start(t, global+text.String(), `{"new_ui": {"active": true, "percentage_rollout": 0}}`,
		map[string]string{"GOOD": host(up), "STUCK": host(stuck)})
	measure := func(site int) (p50, p99 time.Duration) {
		url := sites[site] + "/"
		const connections, each = 16, 60
		times := make([]time.Duration, connections*each)
		var asking sync.WaitGroup
		for k := range connections {
			asking.Go(func() {
				for i := range each {
					begun := time.Now()
					r, err := try(url)
					if err != nil || r.status != 200 || r.body != "fine" {
						t.Errorf("%d %q %v", r.status, r.body, err)
						return
					}
					times[k*each+i] = time.Since(begun)
				}
			})
		}
		asking.Wait()
		slices.Sort(times)
		return times[len(times)/2], times[len(times)*99/100]
	}
	type run struct{ p50, p99 time.Duration }
	runs := make([][]run, 6)
	for range 5 {
		for site := range runs {
			p50, p99 := measure(site)
			runs[site] = append(runs[site], run{p50, p99})
		}
	}
	median := func(site int) (p50, p99 time.Duration) {
		of := func(f func(run) time.Duration) time.Duration {
			var all []time.Duration
			for _, r := range runs[site] {
				all = append(all, f(r))
			}
			slices.Sort(all)
			return all[len(all)/2]
		}
		return of(func(r run) time.Duration { return r.p50 }), of(func(r run) time.Duration { return r.p99 })
	}
	plain50, plain99 := median(0)
	for site, name := range []string{"no mirror", "no mirror", "5 % copied", "5 % copied, hanging", "all copied", "all copied, hanging"} {
		p50, p99 := median(site)
		t.Logf("%-20s p50 %v, p99 %v (%.2f and %.2f)", name, p50, p99, float64(p50)/float64(plain50), float64(p99)/float64(plain99))
		if p50 > 3*plain50+100*time.Millisecond { // a copy that is waited for takes seconds: no figure, see the benchmark
			t.Errorf("%s: clients wait", name)
		}
	}
}

// The client sees the same answer with a mirror: status, headers, framing and body.
func TestMirrorChangesNoByte(t *testing.T) {
	up := keep(t, "old", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.Header().Set("X-Some", "thing")
		fmt.Fprint(w, strings.Repeat("x", 5000))
		_ = http.NewResponseController(w).Flush()
		fmt.Fprint(w, "end")
	})
	other := keep(t, "new", fails)
	var answers []string
	for _, mirror := range []string{"", "mirror 100% {\nbody\n}"} {
		c := serve(t, site+"\tfeature_flags\n\tfeature_route new_ui {\n\ton {\nreverse_proxy NEW\n}\noff {\nreverse_proxy OLD\n}\n"+mirror+"\n}\n}\n",
			`{"new_ui": {"active": true, "percentage_rollout": 0}}`, map[string]string{"NEW": host(other.Server), "OLD": host(up.Server)})
		req, _ := http.NewRequest("GET", c.url(0)+"/", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Header.Del("Date")
		head, err := httputil.DumpResponse(resp, false)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(body) != 5003 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		answers = append(answers, string(head)+string(body))
		if mirror != "" {
			c.mirrorResults(1)
		}
	}
	if answers[0] != answers[1] {
		t.Errorf("without\n%.300s\nwith\n%.300s", answers[0], answers[1])
	}
}

// A copy while its original falls back: placeholders of the one change hands while the
// other still looks at them.
func TestMirrorBesideAFallback(t *testing.T) {
	on := keep(t, "new", nil)
	c := serve(t, site+`
	feature_flags
	@numbered path_regexp n ^/(\d+)
	vars @numbered number {re.n.1}
	feature_route new_ui {
		on {
			reverse_proxy NEW {
				header_up X-Number {re.n.1}
				header_up X-Port {http.request.local.port}
			}
		}
		off {
			feature_route other {
				on {
					error 500
				}
				off {
					respond "old {re.n.1}"
				}
				fallback {
					budget 100% 1000
				}
			}
		}
		mirror 100%
	}
}`, `{"new_ui": {"active": true, "percentage_rollout": 0}, "other": {"active": true, "guard": false}}`, map[string]string{"NEW": host(on.Server)})
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for i := range 50 {
				if r, err := try(fmt.Sprintf("%s/%d", c.url(0), i)); err != nil || r.body != fmt.Sprintf("old %d", i) {
					t.Errorf("%q, %v", r.body, err)
				}
			}
		})
	}
	asking.Wait()
	results, _ := c.mirrorResults(200)
	if results["same"]+results["dropped"] != 200 {
		t.Errorf("%v", results)
	}
	for _, a := range on.all() {
		if a.header.Get("X-Port") == "" {
			t.Fatalf("%s %v", a.uri, a.header)
		}
	}
}
