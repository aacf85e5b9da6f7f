package tests

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// rehearsal is a scenario with a real Caddy, real upstreams and real requests.
type rehearsal struct {
	name    string
	flag    string
	share   float64 // per cent; 0: 10
	rate    float64 // requests a second; 0: 100, as the scenarios have it
	guard   string  // of the definition; "": its defaults
	version func(canary, onset bool) http.HandlerFunc
	grpc    bool
	bot     bool // one user of the canary makes a sixth of the requests, to /bot

	trips    bool
	failures int64 // that the canary may serve after the onset until then; the trip itself may take a moment more
	within   time.Duration
	holds    string // that must be told meanwhile
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine\n")) }

// sometimes answers by bad for a share of the requests.
func sometimes(share float64, bad http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if rand.Float64() < share {
			bad(w, r)
			return
		}
		ok(w, r)
	}
}

func fails(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }

// canaryBecomes is a service whose canary turns bad.
func canaryBecomes(bad http.HandlerFunc) func(canary, onset bool) http.HandlerFunc {
	return func(canary, onset bool) http.HandlerFunc {
		if canary && onset {
			return bad
		}
		return ok
	}
}

func rehearsals() []rehearsal {
	return []rehearsal{
		{name: "S01 the canary answers 5xx to everything", flag: "s01", version: canaryBecomes(fails), trips: true, failures: 14, within: 1500 * time.Millisecond},
		{name: "S22 the same with a canary of 1 %", flag: "s22_53", share: 1, rate: 300, version: canaryBecomes(fails), trips: true, failures: 8, within: 8 * time.Second},
		{name: "S08 the canary never answers", flag: "s08", guard: `, "guard": {"latency": {"warm_up": "2s"}}`, version: canaryBecomes(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), trips: true, within: 3 * time.Second},
		{name: "S09 answers broken off after a 200", flag: "s09", version: canaryBecomes(sometimes(0.3, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})), trips: true, within: 6 * time.Second},
		{name: "answers broken off two seconds after they began", flag: "late", guard: `, "guard": {"latency": {"warm_up": "2s"}}`, version: canaryBecomes(sometimes(0.5, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(2 * time.Second):
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		})), trips: true, within: 8 * time.Second},
		{name: "G1 gRPC fails in trailers", flag: "g1", grpc: true, version: func(canary, onset bool) http.HandlerFunc {
			if canary && onset {
				return func(w http.ResponseWriter, r *http.Request) {
					code := "0"
					if rand.Float64() < 0.2 {
						code = "13"
					}
					announced(code)(w, r)
				}
			}
			return announced("0")
		}, trips: true, within: 10 * time.Second},
		{name: "S11 a shared outage", flag: "s11", version: func(_, onset bool) http.HandlerFunc {
			if onset {
				return sometimes(0.4, fails)
			}
			return ok
		}, holds: monitors.HoldControl},
		{name: "S17 a cold start", flag: "s17", version: func(canary, onset bool) http.HandlerFunc {
			if canary && !onset {
				return func(w http.ResponseWriter, r *http.Request) { time.Sleep(80 * time.Millisecond); ok(w, r) }
			}
			return ok
		}, holds: monitors.HoldWarmUp},
		{name: "S19 a bot", flag: "s19", bot: true, version: func(_, onset bool) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/bot" && rand.Float64() < 0.6 {
					fails(w, r)
					return
				}
				ok(w, r)
			}
		}},
	}
}

const (
	rehearsalHealthy = 4 * time.Second
	rehearsalLong    = 20 * time.Second // with the healthy time
	rehearsalUsers   = 2000
)

// The scenarios that matter most, end to end and all at once: each a site of one
// Caddy with its own flag and its own two upstreams.
func TestGuardEndToEnd(t *testing.T) {
	all := rehearsals()
	var caddyfile strings.Builder
	var features, sites []string
	caddyfile.WriteString(global)
	words := map[string]string{}
	bad := make([]atomic.Int64, len(all)) // that the canary served after the onset
	var onset atomic.Bool
	for i := range all {
		s := &all[i]
		if s.share == 0 {
			s.share = 10
		}
		for _, canary := range []bool{true, false} {
			upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if canary && onset.Load() {
					bad[i].Add(1)
				}
				s.version(canary, onset.Load())(w, r)
			}))
			if s.grpc {
				upstream.Config.Protocols = new(http.Protocols)
				upstream.Config.Protocols.SetUnencryptedHTTP2(true)
			}
			upstream.Start()
			t.Cleanup(func() { upstream.CloseClientConnections(); upstream.Close() })
			word := fmt.Sprintf("OLD%d.", i)
			if canary {
				word = fmt.Sprintf("NEW%d.", i)
			}
			words[word] = host(upstream)
		}
		scheme := ""
		if s.grpc {
			scheme = "h2c://"
		}
		sites = append(sites, "http://"+freeAddress(t))
		fmt.Fprintf(&caddyfile, `
%[4]s {
	feature_flags {
		context {
			user_id header X-User-ID
		}
		flags %[1]s
	}
	feature_route %[1]s {
		on {
			reverse_proxy %[2]sNEW%[3]d.
		}
		off {
			reverse_proxy %[2]sOLD%[3]d.
		}
	}
}
`, s.flag, scheme, i, sites[i])
		features = append(features, fmt.Sprintf(`%q: {"active": true, "percentage_rollout": %g%s}`, s.flag, s.share, s.guard))
	}
	c := start(t, caddyfile.String(), "{"+strings.Join(features, ",\n")+"}", words)

	var held sync.Map // by flag and reason
	began := time.Now()
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i := range all {
		load.Go(func() { crowd(sites[i], &all[i], stop) })
	}
	defer load.Wait()
	defer close(stop)
	seen := map[string]time.Duration{} // when a flag tripped, after the onset
	failures := map[string]int64{}
	for time.Since(began) < rehearsalLong {
		time.Sleep(50 * time.Millisecond)
		if time.Since(began) >= rehearsalHealthy && !onset.Load() {
			onset.Store(true)
		}
		for _, v := range c.api("GET", "flags", "", 200)["flags"].([]any) {
			flag := v.(map[string]any)
			name := flag["name"].(string)
			if test, ok := flag["guard"].(map[string]any)["test"].(map[string]any); ok && test["verdict"] == "hold" {
				held.Store(name+test["reason"].(string), true)
			}
			if _, known := seen[name]; flag["status"] == "tripped" && !known {
				trip := flag["state"].(map[string]any)["trips"].([]any)[0].(map[string]any)
				at, err := time.Parse(time.RFC3339Nano, trip["at"].(string))
				if err != nil {
					t.Fatal(err)
				}
				seen[name] = at.Sub(began) - rehearsalHealthy
				for i := range all {
					if all[i].flag == name {
						failures[name] = bad[i].Load()
					}
				}
				t.Logf("%s %v after the onset, %d requests to the canary: %s", name, seen[name].Round(time.Millisecond), failures[name], trip["evidence"].(map[string]any)["summary"])
			}
		}
	}
	for i := range all {
		s := &all[i]
		t.Run(s.name, func(t *testing.T) {
			after, tripped := seen[s.flag]
			switch {
			case tripped != s.trips:
				t.Errorf("tripped: %t, want %t", tripped, s.trips)
			// Twice the budget of medians: this is one run, on whatever machine.
			case tripped && (after < 0 || after > 2*s.within || s.failures > 0 && failures[s.flag] > 2*s.failures):
				t.Errorf("tripped %v after the onset and after %d failures, want about %v and %d at most", after, failures[s.flag], s.within, s.failures)
			}
			if _, told := held.Load(s.flag + s.holds); s.holds != "" && !told {
				held.Range(func(k, _ any) bool { t.Logf("held: %s", k); return true })
				t.Errorf("it was never held because %q", s.holds)
			}
		})
	}
}

// crowd asks a site as people do: some come much more often than others.
func crowd(url string, s *rehearsal, stop chan struct{}) {
	var reach [rehearsalUsers]float64
	total := 0.0
	for i := range reach {
		total += math.Pow(float64(i)+3, -0.6)
		reach[i] = total
	}
	bot := ""
	for i := 0; bot == ""; i++ {
		if id := fmt.Sprintf("bot-%d", i); evaluator.Bucket(id, s.flag) < s.share {
			bot = id
		}
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, 400) // bounds what hangs
	ctx, cancel := context.WithCancel(context.Background())
	defer asking.Wait()
	defer cancel()
	rate := cmp.Or(s.rate, 100)
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rand.ExpFloat64() / rate * 1e9)):
		}
		x, user := rand.Float64()*total, 0
		for user < rehearsalUsers-1 && reach[user] < x {
			user++
		}
		id, path := fmt.Sprintf("u%d", user), "/"
		if s.bot && rand.IntN(6) == 0 {
			id, path = bot, "/bot"
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		asking.Go(func() {
			defer func() { <-slots }()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
			if err != nil {
				return
			}
			req.Header.Set("X-User-ID", id)
			if resp, err := client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}

// Evidence goes on over reloads and over an ordered restart; what is lost with a
// process that was killed has spent its part of the bound.
func TestGuardEvidenceOverRestarts(t *testing.T) {
	p := newProcess(t, `{
	admin ADMIN
	auto_https off
	grace_period 2s
	feature_flags {
		source file FEATURES
		state local STATE
	}
}
SITE {
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	respond {http.feature_flags.new_ui}
}
`, `{"new_ui": {"active": true, "percentage_rollout": 50}}`, nil)
	p.run()
	type figures struct{ requests, trial float64 }
	read := func() figures {
		c := &instance{t: t, admin: "http://" + p.admin}
		test, ok := c.api("GET", "flags/new_ui", "", 200)["guard"].(map[string]any)["test"].(map[string]any)
		if !ok {
			t.Fatal("there is no guard")
		}
		return figures{test["canary"].(map[string]any)["requests"].(float64) + test["control"].(map[string]any)["requests"].(float64), test["trial"].(float64)}
	}
	ask := func(least float64) {
		t.Helper()
		for i := range 200 {
			if _, err := try(p.site+"/", "X-User-ID", fmt.Sprintf("u%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, 5*time.Second, "the requests are not counted", func() bool { return read().requests >= least })
		time.Sleep(300 * time.Millisecond) // what is counted twice is, by then
	}
	ask(199)
	first := read()
	if first.requests < 199 || first.trial != 0 {
		t.Fatalf("after 200 requests: %+v", first)
	}
	if out, err := newCaddy(p, "reload", "--force", "--config", p.file, "--address", p.admin).CombinedOutput(); err != nil {
		t.Fatalf("reload: %v: %s", err, out)
	}
	ask(first.requests + 199)
	if got := read(); got.requests < first.requests+199 || got.trial != 0 {
		t.Errorf("after a reload and 200 more: %+v", got)
	}
	if out, err := newCaddy(p, "stop", "--address", p.admin).CombinedOutput(); err != nil {
		t.Fatalf("stop: %v: %s", err, out)
	}
	_, _ = p.cmd.Process.Wait()
	p.run()
	ask(first.requests + 2*199)
	resumed := read()
	if resumed.requests < first.requests+2*199 || resumed.trial != 0 {
		t.Errorf("after an ordered restart and 200 more: %+v", resumed)
	}
	for i := range 3 {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		p.kill()
		p.run()
		ask(199)
		if got := read(); got.trial != float64(i+1) || got.requests > 250 {
			t.Errorf("killed %d times: %+v, want a fresh detector with a smaller part of the bound", i+1, got)
		}
	}
}

// After its cool-down a tripped flag is on for a hundredth of its canary, is back
// when that has proved well, and off again, for longer, when it has not.
func TestGuardRecoversByProof(t *testing.T) {
	var broken atomic.Bool
	canary := upstream(t, "new", func(w http.ResponseWriter, _ *http.Request) bool {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return broken.Load()
	})
	c := start(t, canarySite, `{"new_ui": {"active": true, "percentage_rollout": 50, "users": ["staff"], "guard": {"cool_down": "1s", "latency": {"warm_up": "1s"}}}}`,
		map[string]string{"NEW": host(canary), "OLD": host(upstream(t, "old", nil))})
	var few, many []string // whom half a per cent and half of all are on for
	for i := 0; len(few) < 20 || len(many) < 50; i++ {
		id := fmt.Sprintf("u%d", i)
		switch b := evaluator.Bucket(id, "new_ui"); {
		case b < 0.5:
			few = append(few, id)
		case b < 50 && len(many) < 50:
			many = append(many, id)
		}
	}
	i := 0
	ask := func() {
		i++
		c.get("/", "X-User-ID", few[i%len(few)])
		c.get("/", "X-User-ID", many[i%len(many)])
		for range 3 {
			i++
			c.get("/", "X-User-ID", fmt.Sprintf("x%d", i))
		}
	}
	status := func() string { return c.api("GET", "flags/new_ui", "", 200)["status"].(string) }
	until := func(want string, limit time.Duration) {
		t.Helper()
		eventually(t, limit, "it is "+status()+", not "+want, func() bool { ask(); return status() == want })
	}
	until("split", time.Second)
	broken.Store(true)
	until("tripped", 20*time.Second)
	until("half_open", 5*time.Second)
	state := c.api("GET", "flags/new_ui", "", 200)
	if state["percentage"] != 0.5 {
		t.Errorf("half-open at %v %%, want a hundredth of 50", state["percentage"])
	}
	if r := c.get("/", "X-User-ID", "staff"); !strings.HasPrefix(r.body, "old") {
		t.Errorf("half-open, a listed user gets %q: want only some whom the split chose", r.body)
	}
	until("tripped", 20*time.Second) // it still fails
	if f := c.api("GET", "flags/new_ui", "", 200)["state"].(map[string]any); f["failures"] != 1.0 || f["retry_at"] == nil {
		t.Errorf("after a probe that failed: %v", f)
	}
	broken.Store(false)
	until("half_open", 5*time.Second)
	until("split", 30*time.Second) // on proof
	if r := c.get("/", "X-User-ID", many[0]); !strings.HasPrefix(r.body, "new") {
		t.Errorf("recovered, and a user of the canary gets %q", r.body)
	}
	audit := fmt.Sprint(c.api("GET", "audit?flag=new_ui", "", 200))
	for _, want := range []string{"half_open", "recovered: "} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit lacks %q: %s", want, audit)
		}
	}
}

// Editing a tripped flag arms it anew where its guard says so, and else not.
func TestGuardRearm(t *testing.T) {
	for _, rearm := range []string{"manual", "edit"} {
		t.Run(rearm, func(t *testing.T) {
			features := func(share int) string {
				return fmt.Sprintf(`{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": %d, "error_threshold": 0, "guard": {"rearm": %q}}}`, share, rearm)
			}
			broken := upstream(t, "new", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
			c := start(t, canarySite, features(10), map[string]string{"NEW": host(broken), "OLD": host(upstream(t, "old", nil))})
			c.get("/", "X-User-ID", "alice")
			status := func() any { return c.api("GET", "flags/new_ui", "", 200)["status"] }
			if status() != "tripped" {
				t.Fatalf("status %v, want tripped", status())
			}
			c.write("features.json", features(20))
			if rearm == "edit" {
				eventually(t, 5*time.Second, "it is still tripped", func() bool { return status() == "split" })
				return
			}
			time.Sleep(500 * time.Millisecond)
			if status() != "tripped" {
				t.Errorf("status %v after an edit, want tripped", status())
			}
		})
	}
}

// An answer that guard.errors.match names is a failure whatever its status says.
func TestGuardMatch(t *testing.T) {
	for _, headers := range []string{"", "headers list X-Features\n"} { // followed one by one, and in bulk
		liar := upstream(t, "new", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X-Error", "no stock")
			return false
		})
		site := strings.Replace(canarySite, "	feature_route", "	header X-Never x\n	feature_route", 1)
		site = strings.Replace(site, "		context {", "		"+headers+"		context {", 1)
		c := start(t, site, `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 10, "error_threshold": 2,
			"guard": {"errors": {"match": [{"header": {"X-Error": "*"}, "status": 200}]}}}}`,
			map[string]string{"NEW": host(liar), "OLD": host(upstream(t, "old", nil))})
		for range 3 {
			if r := c.get("/", "X-User-ID", "alice"); r.status != 200 || !strings.HasPrefix(r.body, "new") {
				t.Fatalf("%d %q", r.status, r.body)
			}
		}
		flag := c.api("GET", "flags/new_ui", "", 200)
		if flag["status"] != "tripped" || !strings.Contains(fmt.Sprint(flag["state"]), "guard.errors.match") {
			t.Errorf("three answers that mean failure: %v %v", flag["status"], flag["state"])
		}
	}
}

// A guard's verdict is told wherever people look: log, API, metrics, audit, events
// and terminal.
func TestGuardIsTold(t *testing.T) {
	var broken atomic.Bool
	canary := upstream(t, "new", func(w http.ResponseWriter, _ *http.Request) bool {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return broken.Load()
	})
	c := serve(t, site+`
`+twoWays+`}
`, `{"new_ui": {"active": true, "percentage_rollout": 25, "guard": {"cool_down": "1h"}}}`,
		map[string]string{"NEW": host(canary), "OLD": host(upstream(t, "old", nil))})
	i := 0
	ask := func() {
		i++
		c.get("/", "X-User-ID", fmt.Sprintf("u%d", i))
	}
	for range 300 {
		ask()
	}
	eventually(t, 3*time.Second, "the guard has no figures", func() bool {
		metrics := c.call("GET", "/metrics", "").body
		return strings.Contains(metrics, `caddy_feature_flags_guard_log_e{flag="new_ui",test="total"}`) &&
			strings.Contains(metrics, `caddy_feature_flags_guard_judged{cohort="canary",flag="new_ui"}`) &&
			strings.Contains(metrics, `caddy_feature_flags_guard_held{flag="new_ui"} 1`) // warming up
	})
	p := &process{t: t, admin: strings.TrimPrefix(c.admin, "http://"), dir: c.dir}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p.path = path
	show := func() string {
		out, stderr, status := p.command("", "show", "new_ui", "--address", p.admin)
		if status != 0 {
			t.Fatal(stderr)
		}
		return out
	}
	if out := show(); !strings.Contains(out, "guard: hold: warming up (share 25 %, since ") || !strings.Contains(out, "evidence against the canary: 0.") {
		t.Errorf("show, while nothing is wrong:\n%s", out)
	}
	broken.Store(true)
	eventually(t, 10*time.Second, "it does not trip", func() bool {
		ask()
		return c.api("GET", "flags/new_ui", "", 200)["status"] == "tripped"
	})
	flag := c.api("GET", "flags/new_ui", "", 200)
	trip := flag["state"].(map[string]any)["trips"].([]any)[0].(map[string]any)
	evidence := trip["evidence"].(map[string]any)
	summary := evidence["summary"].(string)
	guard := evidence["guard"].(map[string]any)
	if guard["users"].(float64) < 3 || guard["share"] != 25.0 || guard["log_e"].(float64) < 9.2 || len(evidence["last_failing"].([]any)) < 3 {
		t.Errorf("evidence: %v", evidence)
	}
	if flag["state"].(map[string]any)["retry_at"] == nil {
		t.Errorf("nobody says when it is tried again: %v", flag["state"])
	}
	out := show()
	for _, want := range []string{"tripped at ", " by errors: " + summary, "failing request ", "status 503", "to be tried again at "} {
		if !strings.Contains(out, want) {
			t.Errorf("show lacks %q:\n%s", want, out)
		}
	}
	if audit := fmt.Sprint(c.api("GET", "audit?flag=new_ui", "", 200)); !strings.Contains(audit, "errors: "+summary) {
		t.Errorf("audit: %s", audit)
	}
	eventually(t, 3*time.Second, "the log does not tell", func() bool {
		text, err := os.ReadFile(filepath.Join(c.dir, "caddy.log"))
		return err == nil && strings.Contains(string(text), summary) && strings.Contains(string(text), "retry_at")
	})
	id := evidence["last_failing"].([]any)[0].(map[string]any)["id"].(string)
	eventually(t, 3*time.Second, "the access log has no such request", func() bool {
		text, err := os.ReadFile(filepath.Join(c.dir, "access.log"))
		return err == nil && strings.Contains(string(text), id)
	})
}
