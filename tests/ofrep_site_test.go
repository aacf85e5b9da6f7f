package tests

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Paths that a handler of ours answers somewhere are an application's like any other
// elsewhere: flags are told, canaries are guarded, bad tokens are refused.
func TestOwnPathsOfOthers(t *testing.T) {
	const features = `{"new_ui": {"active": true, "client": true, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 3}}`
	c := serve(t, site+twoWays+"}\nhttp://:0 {\n	bind 127.0.0.2\n	feature_flags\n	feature_flags_ofrep\n	feature_flags_feedback\n}\n", features, map[string]string{
		"NEW": host(upstream(t, "new", func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		})), "OLD": host(upstream(t, "old", nil)),
	})
	for range 4 {
		if r := c.post("/api/feedback", "{}", "X-User-ID", "alice"); r.status != http.StatusBadGateway {
			t.Fatalf("alice does not get the canary: %d %s", r.status, r.body)
		}
	}
	eventually(t, 3*time.Second, "the canary is not guarded", func() bool { return c.api("GET", "flags/new_ui", "", 200)["status"] == "tripped" })
	if r := c.post("/ofrep/v1/x", "{}", "X-User-ID", "bob"); !strings.HasPrefix(r.body, "old\nX-Feature-New-Ui: off") {
		t.Errorf("%d %s", r.status, r.body)
	}

	strict := serve(t, site+"	handle /admin/* {\n		feature_flags {\n			context {\n				user_id jwt sub\n			}\n			jwt {\n				from header Authorization\n				secret SECRET\n				algorithms HS256\n				on_invalid reject\n			}\n		}\n		reverse_proxy APP\n	}\n	handle {\n		feature_flags_feedback\n	}\n}\n",
		features, map[string]string{"SECRET": `"` + tokenSecret + `"`, "APP": host(echo(t, "app"))})
	for _, path := range []string{"/admin/x", "/admin/x/feedback"} {
		if r := strict.post(path, "{}", "Authorization", "Bearer forged.by.mallory"); r.status != http.StatusUnauthorized {
			t.Errorf("%s with a forged token: %d", path, r.status)
		}
	}
}

// Under handle_path, and in a site of one page, it is the same protocol.
func TestOFREPInOtherSites(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("the page"), 0o600); err != nil {
		t.Fatal(err)
	}
	const flagged = "	feature_flags {\n		context {\n			user_id header X-User-ID\n			user_id sticky\n		}\n	}\n"
	for name, c := range map[string]struct{ config, prefix string }{
		"handle_path": {flagged + "	handle_path /flags/* {\n		feature_flags_ofrep\n	}\n", "/flags"},
		"one page": {flagged + "	handle /ofrep/* {\n		feature_flags_ofrep\n	}\n	handle {\n		feature_flags_feedback /feedback\n		root * PAGE\n		try_files {path} /index.html\n		file_server\n	}\n" +
			"	handle /feedback {\n		feature_flags_feedback\n	}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, prefix := serve(t, site+c.config+"}\n", clientFlags, map[string]string{"PAGE": dir}), c.prefix
			r := c.post(prefix+allFlags, alice)
			if r.bulk(t)["listed"].Variant != "on" || r.header.Get("Set-Cookie") != "" {
				t.Errorf("%v %s", r.header, r.body)
			}
			if r := c.post(prefix+allFlags+"/listed", alice); r.told(t).Variant != "on" {
				t.Errorf("%s", r.body)
			}
			events, _, _ := c.refetches(r.streamAddress(t), "")
			nextID(t, events)
			for i := range 10 {
				c.post(prefix+allFlags, "{}", "X-User-ID", fmt.Sprint("u", i))
			}
			if name == "one page" {
				if r := c.post("/feedback", `{"flag": "split", "rating": 5}`); r.status != 202 {
					t.Errorf("feedback: %d %s", r.status, r.body)
				}
				if r := c.get("/some/page"); r.body != "the page" {
					t.Errorf("the page: %s", r.body)
				}
			}
			series, _ := scrape(t, c.admin+"/metrics")
			for s, value := range series {
				if strings.HasPrefix(s, "caddy_feature_flags_requests_total") && strings.Contains(s, "split") && value > 1 {
					t.Errorf("%s is %v", s, value)
				}
			}
		})
	}
}

// A path that was rewritten is not answered: a password that is asked for by path was
// not asked for.
func TestOFREPBehindRewrites(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("the page"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := serve(t, site+"	basic_auth /ofrep/* {\n		bob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n	}\n	feature_flags\n	feature_flags_ofrep\n	feature_flags_feedback\n	root * PAGE\n	try_files {path} /index.html\n	file_server\n}\n",
		clientFlags, map[string]string{"PAGE": dir})
	for _, path := range []string{allFlags, allFlags + "/listed", "/ofrep/v1/events?token=x", "/feedback"} {
		if r := c.post(path, alice); r.status != http.StatusMethodNotAllowed || strings.Contains(r.body, "listed") {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	for _, want := range []string{"rewritten before feature_flags_ofrep", "rewritten before feature_flags_feedback"} {
		if log := c.file("caddy.log"); strings.Count(log, want) != 1 {
			t.Errorf("the log says %q %d times", want, strings.Count(log, want))
		}
	}
}

// A new sticky id is for those who ask and say nothing of themselves, not for streams,
// refusals and pages of elsewhere, which would be somebody else each time.
func TestOFREPNewIDs(t *testing.T) {
	c := serve(t, site+"	feature_flags {\n		context {\n			user_id sticky\n		}\n	}\n	feature_flags_ofrep {\n		cors *\n	}\n	feature_flags_feedback {\n		cors *\n	}\n	respond ok\n}\n", clientFlags, nil)
	r := c.post(allFlags, alice)
	stream, err := http.Get(c.url(0) + r.streamAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	stream.Body.Close()
	for what, r := range map[string]reply{
		"who says who she is": r, "a stream": {header: stream.Header}, "preflight": c.do("OPTIONS", allFlags, ""), "another method": c.do("PUT", allFlags, ""),
		"a bad body": c.post(allFlags, "{"), "nothing": c.post("/ofrep/v1/x", "{}"), "bad feedback": c.post("/feedback", "{"),
		"a foreign page": c.post(allFlags, "{}", "Origin", "https://app.example"), "a foreign site": c.post(allFlags, "{}", "Sec-Fetch-Site", "cross-site"),
	} {
		if cookies := r.header.Values("Set-Cookie"); len(cookies) > 0 {
			t.Errorf("%s gets %q", what, cookies)
		}
	}
	foreign := c.post(allFlags, "{}", "Origin", "https://app.example").bulk(t)
	if got := foreign["split"]; got.ErrorCode != "TARGETING_KEY_MISSING" {
		t.Errorf("a page of elsewhere gets %+v", got)
	}
	anonymous := c.post(allFlags, "{}")
	if got := anonymous.bulk(t)["split"]; got.Reason != "SPLIT" || len(anonymous.header.Values("Set-Cookie")) != 1 {
		t.Errorf("who says nothing gets %+v and %q", got, anonymous.header.Values("Set-Cookie"))
	}
	if page := c.get("/"); len(page.header.Values("Set-Cookie")) != 1 {
		t.Error("the application's own pages get no id")
	}
}

// Where no feature_flags has read the request, what clients say is believed, and the log
// says that once.
func TestOFREPBesideFlags(t *testing.T) {
	c := serve(t, site+"	handle /api/* {\n		feature_flags {\n			context {\n				user_id header X-User-ID\n			}\n		}\n		respond ok\n	}\n	feature_flags_ofrep\n}\n", clientFlags, nil)
	for range 3 {
		if r := c.post(allFlags+"/listed", alice, "X-User-ID", "mallory"); r.told(t).Variant != "on" {
			t.Errorf("%s", r.body)
		}
	}
	if n := strings.Count(c.file("caddy.log"), "what clients say of themselves is believed"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
}

// What a client takes its time to ask is decided when it has asked, and nobody else is
// told of what was before.
func TestOFREPSlowBody(t *testing.T) {
	at := time.Now().Add(2 * time.Second).UTC()
	c := serve(t, site+"	feature_flags_ofrep\n}\n", fmt.Sprintf(`{"launch": {"active": true, "client": true, "activation_date": %q, "regions": ["RO"]}}`, at.Format(time.RFC3339Nano)), nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url(0), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const body = `{"context": {"region": "RO"}}`
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", allFlags, len(body), body[:5])
	eventually(t, 10*time.Second, "the date has not come", func() bool {
		return c.post(allFlags, `{"context": {"region": "RO", "x": 1}}`).bulk(t)["launch"].Variant == "on"
	})
	fmt.Fprint(conn, body[5:])
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := c.post(allFlags, body).bulk(t)["launch"]; got.Variant != "on" {
		t.Errorf("somebody else gets %+v", got)
	}
}

// Whatever changes what clients get is told: segments, the environment, and what has
// changed between an answer and its stream.
func TestOFREPStreamMissesNothing(t *testing.T) {
	const features = `{"version": 1, "segments": {"staff": {"users": ["bob"]}}, "flags": {
		"inside": {"active": true, "client": true, "rules": [{"name": "staff", "when": "segment(\"staff\")", "serve": "on"}], "percentage_rollout": 0},
		"staged": {"active": true, "client": true, "environments": ["production"]}}}`
	c := serve(t, site+"	feature_flags_ofrep\n}\n", features, nil)
	address := c.post(allFlags, alice).streamAddress(t)
	events, _, _ := c.refetches(address, "")
	opening := nextID(t, events)
	c.write("features.json", strings.Replace(features, "bob", "alice", 1))
	segment := nextID(t, events)
	if segment == opening {
		t.Error("a segment is not told")
	}
	c.text = strings.Replace(c.text, "state local STATE", "state local STATE\n		environment staging", 1)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	back, _, _ := c.refetches(address, segment)
	if id := nextID(t, back); id == segment {
		t.Error("another environment is not told")
	}
	c.api("POST", "flags/staged/disable", "{}", 200)
	late, _, _ := c.refetches(address, "")
	nextID(t, late)
}

// What one client says takes no more memory than it should.
func TestOFREPLongValues(t *testing.T) {
	c := clients(t, "")
	for _, value := range []string{`"` + strings.Repeat("7", 60_000) + `"`, strings.Repeat("7", 60_000)} {
		if got := c.post(allFlags+"/regional", `{"context": {"targetingKey": "a", "region": `+value+`}}`).told(t); got.Reason != "DEFAULT" {
			t.Errorf("%+v", got)
		}
		if got := c.post(allFlags+"/split", `{"context": {"targetingKey": `+value+`}}`).told(t); got.ErrorCode != "TARGETING_KEY_MISSING" {
			t.Errorf("a long key: %+v", got)
		}
	}
}

// What stands for definitions cannot be guessed at without the key, and is the same for
// instances that share one.
func TestOFREPTagsAreKeyed(t *testing.T) {
	tag := func(key string) string {
		return strings.Join(clients(t, "streams off\n		key "+key).post(allFlags, alice).header["Etag"], "")
	}
	if one, again, other := tag("sixteen-letters-1"), tag("sixteen-letters-1"), tag("sixteen-letters-2"); one == "" || one != again || one == other {
		t.Errorf("tags %s, %s, and %s by another key", one, again, other)
	}
}

// Changed definitions are told twice: another instance may have read them later, and be
// the one that answered.
func TestOFREPStreamRepeats(t *testing.T) {
	c := serve(t, site+"	feature_flags_ofrep {\n		accept region\n	}\n}\n", clientFlags, nil)
	address := c.post(allFlags, alice).streamAddress(t)
	events, _, leave := c.refetches(address, "")
	opening := nextID(t, events)
	c.write("features.json", strings.Replace(clientFlags, `"static_off": {"active": false`, `"static_off": {"active": true`, 1))
	changed := nextID(t, events)
	if again := nextID(t, events); changed == opening || again != changed {
		t.Errorf("told %s, %s, then %s", opening, changed, again)
	}
	select {
	case id := <-events:
		t.Errorf("told once more: %s", id)
	case <-time.After(2 * time.Second):
	}
	leave()
	// What clients may say of themselves decides what they get.
	c.text = strings.Replace(c.text, "accept region", "accept region user_id", 1)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	events, _, _ = c.refetches(address, changed)
	if id := nextID(t, events); id == changed {
		t.Error("another accept is not told")
	}
}

// Where there is no room for another stream none is offered, but to who has one.
func TestOFREPStreamsAreFull(t *testing.T) {
	c := serve(t, site+"	feature_flags_ofrep {\n		streams 10\n	}\n}\n", clientFlags, nil) // one of an address
	address := c.post(allFlags, alice).streamAddress(t)
	_, _, leave := c.refetches(address, "")
	if r := c.post(allFlags, alice); r.status != 200 || strings.Contains(r.body, "eventStreams") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if got := c.post(allFlags+"?flagConfigEtag=x", alice).streamAddress(t); got != address {
		t.Errorf("who has a stream gets %s, not %s", got, address)
	}
	leave()
	eventually(t, 5*time.Second, "no stream is offered when there is room again", func() bool {
		return strings.Contains(c.post(allFlags, alice).body, "eventStreams")
	})
}

// A flag that cannot be decided is off, and the log says why.
func TestUndecided(t *testing.T) {
	c := serve(t, site+"	feature_flags_ofrep\n}\n", `{"loops": {"active": true, "client": true, "rules": [{"name": "r", "when": "groups.exists(a, groups.exists(b, a + b == 'x'))", "serve": "on"}]}}`, nil)
	groups := strings.TrimSuffix(strings.Repeat(`"g",`, 200), ",")
	if r := c.post(allFlags, `{"context": {"groups": [`+groups+`]}}`); r.bulk(t)["loops"].ErrorCode != "GENERAL" {
		t.Errorf("%s", r.body)
	}
	if log := c.file("caddy.log"); !strings.Contains(log, "a feature flag cannot be decided for a request") || !strings.Contains(log, "more than 10000 turns") {
		t.Error("the log does not say why")
	}
}
