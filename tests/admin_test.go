package tests

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// refused fails the test unless a call is answered with the status and an error
// that holds all of the texts.
func (c *instance) refused(method, path, body string, status int, texts ...string) reply {
	c.t.Helper()
	r := c.call(method, path, body)
	var said struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(r.body), &said); err != nil || said.Error == "" || r.status != status {
		c.t.Errorf("%s %s: status %d %q, want %d and an error", method, path, r.status, r.body, status)
	}
	if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		c.t.Errorf("%s %s: Content-Type %q", method, path, got)
	}
	for _, text := range texts {
		if !strings.Contains(said.Error, text) {
			c.t.Errorf("%s %s: error %q does not say %q", method, path, said.Error, text)
		}
	}
	if strings.Contains(said.Error, "caddymodule.") || strings.Contains(said.Error, "Go value") {
		c.t.Errorf("%s %s: error %q is about our code", method, path, said.Error)
	}
	return r
}

// words gives canarySite its upstreams.
func words(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"NEW": host(upstream(t, "new", failing)), "OLD": host(upstream(t, "old", nil))}
}

func TestAdminCallsThatAreWrong(t *testing.T) {
	c := start(t, canarySite, `{"new_ui": {"active": true}, "checkout.v2-b": {"active": false}}`, words(t))
	const base = "/feature_flags/"
	calls := map[string]string{
		"flags": "GET", "flags/new_ui": "GET", "flags/new_ui/enable": "POST", "flags/new_ui/disable": "POST", "flags/new_ui/reset": "POST",
		"evaluate": "POST", "audit": "GET", "events": "GET", "lint": "GET",
	}
	for path, right := range calls {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			if method == right {
				continue
			}
			if r := c.refused(method, base+path, "", http.StatusMethodNotAllowed, method, right); r.header.Get("Allow") != right {
				t.Errorf("%s %s: Allow %q, want %q", method, path, r.header.Get("Allow"), right)
			}
		}
		if right == "POST" || path == "events" {
			continue
		}
		if r := c.call(right, base+path, ""); r.status != http.StatusOK || !json.Valid([]byte(r.body)) || r.header.Get("Content-Type") != "application/json" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %d %v %s", right, path, r.status, r.header, r.body)
		}
	}

	for _, path := range []string{"", "flag", "flags/", "flags/new_ui/", "flags/new_ui/toggle", "flags/new_ui/enable/now", "flags/a%2Fb/enable/x", "audit/new_ui"} {
		c.refused("GET", base+path, "", http.StatusNotFound, "no such call")
	}
	for name, nearest := range map[string]string{"new-ui": "new_ui", "New_UI": "new_ui", "new_iu": "new_ui", "checkout_v2-b": "checkout.v2-b", "checkoutv2": "checkout.v2-b"} {
		c.refused("GET", base+"flags/"+name, "", http.StatusNotFound, name, `did you mean "`+nearest+`"?`)
		c.refused("POST", base+"flags/"+name+"/disable", "", http.StatusNotFound, name)
	}
	for _, name := range []string{"zzz", "%00", "a%2Fb", "%F0%9F%92%A5", strings.Repeat("x", 5000), "%22%3Cscript%3E"} {
		if r := c.refused("GET", base+"flags/"+name, "", http.StatusNotFound, "is not defined"); strings.Contains(r.body, "did you mean") {
			t.Errorf("%s: %s", name, r.body)
		}
	}

	bodies := map[string][]string{ // body: what the error says
		`{"reason": "x"`:                 {"ends in the middle"},
		`{"reason": }`:                   {"want a JSON object"},
		`reason=x`:                       {"want a JSON object"},
		`[]`:                             {"want a JSON object", "array"},
		`"x"`:                            {"want a JSON object", "string"},
		`{"reason": 7}`:                  {"reason: want a string", "number"},
		`{"why": "x"}`:                   {`unknown field "why"`, "reason, by"},
		`{"reason": "x"} and more`:       {"text after"},
		`{"reason": "x"}}`:               {"text after"},
		`{"reason": "x"}{"reason": "y"}`: {"text after"},
		`{"by": "` + strings.Repeat("b", 257) + `"}`:      {"by: at most 256"},
		`{"reason": "` + strings.Repeat("r", 4097) + `"}`: {"reason: at most 4096"},
	}
	for body, texts := range bodies {
		for _, call := range []string{"enable", "disable", "reset"} {
			c.refused("POST", base+"flags/new_ui/"+call, body, http.StatusBadRequest, texts...)
		}
	}
	big := `{"reason": "` + strings.Repeat("r", 2<<20) + `"}`
	c.refused("POST", base+"flags/new_ui/disable", big, http.StatusRequestEntityTooLarge, "more than 1048576 bytes")
	c.refused("POST", base+"flags/new_ui/disable", `{"reason": "x"}`+strings.Repeat(" ", 2<<20), http.StatusRequestEntityTooLarge, "bytes")
	c.refused("POST", base+"evaluate", `{"context": `+big+`}`, http.StatusRequestEntityTooLarge, "bytes")
	for body, texts := range map[string][]string{
		`{"context": [1]}`:                   {"context: want an object", "array"},
		`{"flags": "new_ui"}`:                {"flags: want a list", "string"},
		`{"flags": [1]}`:                     {"flags", "want a string"},
		`{"at": "yesterday"}`:                {"at: want a time as 2026-01-31T12:00:00Z", `"yesterday"`},
		`{"at": 5}`:                          {"at: want a time"},
		`{"environment": 5}`:                 {"environment: want a string"},
		`{"ctx": {}}`:                        {`unknown field "ctx"`, "context, environment, at, flags"},
		`{"context": {}} {}`:                 {"text after"},
		strings.Repeat(`{"context":`, 20000): {""},
	} {
		c.refused("POST", base+"evaluate", body, http.StatusBadRequest, texts...)
	}
	for _, limit := range []string{"0", "-1", "10001", "many", "1e3", "1.5"} {
		c.refused("GET", base+"audit?limit="+limit, "", http.StatusBadRequest, "limit: want a number from 1 to 10000")
	}
	// None of it has changed anything.
	if flag := c.api("GET", "flags/new_ui", "", 200); flag["status"] != "on" {
		t.Errorf("after calls that were refused the flag is %v", flag["status"])
	}
	if entries := c.api("GET", "audit", "", 200)["entries"].([]any); len(entries) != 0 {
		t.Errorf("after calls that were refused the audit has %v", entries)
	}
	// A percent-escape of what need not be escaped is the same name.
	if flag := c.api("POST", "flags/check%6Fut%2Ev2-b/enable", "", 200); flag["name"] != "checkout.v2-b" || flag["status"] != "on" {
		t.Errorf("an escaped name gives %v", flag)
	}
}

// Each order is in force for the very next request, holds over restart, reload
// and changes of the file, and beats what it should.
func TestOrders(t *testing.T) {
	features := `{"new_ui": {"active": false, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 2}}`
	c := start(t, canarySite, features, words(t))
	way := func(user string) string {
		t.Helper()
		first, _, _ := strings.Cut(c.get("/", "X-User-ID", user).body, "\n")
		return first
	}
	expect := func(status, alice string) {
		t.Helper()
		if got := way("alice"); got != alice {
			t.Errorf("alice gets %q, want %q", got, alice)
		}
		if got := way("bob"); got != "old" {
			t.Errorf("bob gets %q: targeting is not in force", got)
		}
		if got := c.api("GET", "flags/new_ui", "", 200)["status"]; got != status {
			t.Errorf("status %v, want %s", got, status)
		}
	}
	over := func(status, alice string) { // everything that an order holds over
		t.Helper()
		expect(status, alice)
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		expect(status, alice)
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		expect(status, alice)
	}
	order := func(call, body, status string) {
		t.Helper()
		if got := c.api("POST", "flags/new_ui/"+call, body, 200)["status"]; got != status {
			t.Errorf("%s answers %v, want %s", call, got, status)
		}
	}
	change := func(text string) {
		t.Helper()
		before := c.api("GET", "flags/new_ui", "", 200)["definition"]
		c.write("features.json", text)
		eventually(t, 2*time.Second, "the change is not taken", func() bool {
			after := c.api("GET", "flags/new_ui", "", 200)["definition"]
			a, _ := json.Marshal(before)
			b, _ := json.Marshal(after)
			return string(a) != string(b)
		})
	}

	expect("inactive", "old")
	order("enable", "", "on")
	over("on", "new")
	order("disable", `{"reason": "complaints", "by": "ops"}`, "disabled")
	over("disabled", "old")
	change(strings.Replace(features, `"active": false`, `"active": true`, 1))
	expect("disabled", "old")
	order("reset", `{}`, "on")
	over("on", "new")

	// A trip: no enabling and no edit undoes it; disabled beats it.
	for range 3 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	over("tripped", "old")
	order("enable", `{"by": ""}`, "tripped")
	over("tripped", "old")
	change(strings.Replace(features, `"active": false`, `"active": true, "metadata": {"owner": "me"}`, 1))
	expect("tripped", "old")
	order("disable", "", "disabled")
	over("disabled", "old")
	order("enable", "", "tripped")
	order("disable", "", "disabled")
	order("reset", `{"reason": "fixed"}`, "on")
	over("on", "new")
	// It counts anew: two more failures are within the threshold.
	for range 2 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	expect("on", "new")
	order("reset", "", "on") // nothing is tripped, and two failures are forgotten
	for range 2 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	expect("on", "new")

	// The audit, newest first, over all the restarts.
	type entry struct{ Action, Flag, By, Reason, At string }
	audit := func(query string) (out []entry) {
		t.Helper()
		text, err := json.Marshal(c.api("GET", "audit"+query, "", 200)["entries"])
		if err == nil {
			err = json.Unmarshal(text, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	all := audit("")
	for i, e := range all[1:] {
		if e.At > all[i].At {
			t.Errorf("the audit is not newest first: %v before %v", all[i], e)
		}
	}
	find := func(action, by, reason string) {
		t.Helper()
		for _, e := range all {
			if e.Action == action && e.By == by && e.Reason == reason && e.Flag == "new_ui" {
				return
			}
		}
		t.Errorf("the audit has no %s by %q for %q: %v", action, by, reason, all)
	}
	find("enabled", "api", "")
	find("disabled", "ops", "complaints")
	find("tripped", "guard", "errors: 3 canary requests failed of 4 since it was armed, more than error_threshold 2; control: 0 of 1")
	find("reset", "api", "fixed")
	if all[0].Action != "reset" || all[0].By != "api" {
		t.Errorf("a reset that clears nothing is not told: %v", all[0])
	}
	if got := audit("?limit=2"); len(got) != 2 || got[0] != all[0] || got[1] != all[1] {
		t.Errorf("limit=2 gives %v", got)
	}
	if got := audit("?flag=other"); len(got) != 0 {
		t.Errorf("the audit of another flag is %v", got)
	}
	if got := audit("?flag=new_ui&limit=10000"); len(got) != len(all) {
		t.Errorf("the audit of the flag has %d entries, want %d", len(got), len(all))
	}
	if text, err := os.ReadFile(filepath.Join(c.dir, "state", "state.journal")); err != nil || !strings.Contains(string(text), `"fixed"`) {
		t.Errorf("state.journal: %v: %s", err, text)
	}
}

func TestEvaluateCall(t *testing.T) {
	c := start(t, strings.Replace(global, "	feature_flags {", "	feature_flags {\n		environment staging", 1)+"http://:0 {\n	bind 127.0.0.1\n	respond ok\n}\n",
		`{
		"big": {"active": true, "users": [9007199254740993]},
		"here": {"active": true, "environments": ["staging"]},
		"later": {"active": true, "activation_date": "2030-01-01T00:00:00Z"},
		"child": {"active": true, "depends_on": ["here"], "regions": ["RO"]},
		"paint": {"active": true, "variants": {"red": {"weight": 100, "value": {"hex": "#f00"}}, "blue": {"weight": 0}}}
	}`, nil)
	decide := func(body, flag string) map[string]any {
		t.Helper()
		d, ok := c.api("POST", "evaluate", body, 200)["decisions"].(map[string]any)[flag].(map[string]any)
		if !ok {
			t.Fatalf("%s: no decision on %s", body, flag)
		}
		return d
	}
	f := func(body, flag, want string) {
		t.Helper()
		d := decide(body, flag)
		if got := strings.TrimSpace(d["variant"].(string) + " " + d["reason"].(string) + " " + d["detail"].(string)); got != want {
			t.Errorf("%s: %s is %q, want %q", body, flag, got, want)
		}
		if d["enabled"] != (d["variant"] != "off") {
			t.Errorf("%s: %v", body, d)
		}
	}
	f(`{"context": {"user_id": 9007199254740993}}`, "big", "on TARGETING_MATCH user")
	f(`{"context": {"user_id": "9007199254740993"}}`, "big", "on TARGETING_MATCH user")
	f(`{"context": {"targetingKey": 9007199254740993}}`, "big", "on TARGETING_MATCH user")
	f(`{"context": {"user_id": 9007199254740992}}`, "big", "off DEFAULT user")
	f(``, "here", "on STATIC")
	f(`{}`, "here", "on STATIC")
	f(`{"environment": "production"}`, "here", "off DISABLED environment")
	f(`{"environment": ""}`, "here", "off DISABLED environment")
	f(`{"at": "2029-12-31T23:59:59Z"}`, "later", "off DISABLED not_yet_active")
	f(`{"at": "2030-01-01T02:00:00+02:00"}`, "later", "on STATIC")
	f(`{"at": "2030-01-01T00:00:00"}`, "later", "on STATIC")
	f(`{"at": "2030-01-01T00:00:00.5Z"}`, "later", "on STATIC")
	f(`{"context": {"region": "RO"}, "environment": "production"}`, "child", "off DISABLED dependency:here")
	f(`{"context": {"region": "RO"}}`, "child", "on STATIC")
	f(`{"flags": ["nope"]}`, "nope", "off ERROR FLAG_NOT_FOUND")

	if d := decide(`{"context": {"region": "US"}}`, "child"); len(d["path"].([]any)) < 3 || !strings.Contains(marshal(d["path"]), `"check":"region"`) {
		t.Errorf("the path is %v", d["path"])
	}
	if d := decide(`{"context": {"user_id": 1}}`, "paint"); marshal(d["value"]) != `{"hex":"#f00"}` {
		t.Errorf("the value is %v", d["value"])
	}
	if d := decide(`{"flags": ["heres"]}`, "heres"); !strings.Contains(d["error_message"].(string), `did you mean "here"?`) || d["error_code"] != "FLAG_NOT_FOUND" {
		t.Errorf("an unknown flag: %v", d)
	}
	if all := c.api("POST", "evaluate", `{"flags": ["big", "here"]}`, 200)["decisions"].(map[string]any); len(all) != 2 {
		t.Errorf("flags does not restrict the answer: %v", all)
	}
	// Asking is no exposure.
	if at := c.api("GET", "flags/here", "", 200)["last_asked"]; at != nil {
		t.Errorf("evaluate counted as a request: last_asked %v", at)
	}
}

func marshal(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}

// Without our app the API says what is missing; with two configs one after the
// other it is about the one that runs.
func TestAdminOverConfigs(t *testing.T) {
	c := start(t, "{\n	admin ADMIN\n	persist_config off\n	auto_https off\n}\nhttp://:0 {\n	bind 127.0.0.1\n	respond ok\n}\n", "", nil)
	for _, path := range []string{"flags", "lint", "events", "nonsense"} {
		c.refused("GET", "/feature_flags/"+path, "", http.StatusServiceUnavailable, "not configured", "global option feature_flags")
	}
	load := func(text, features string) {
		t.Helper()
		c.text = text
		c.write("features.json", features)
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
	}
	// An app that only a site asks for has no flags.
	load("{\n	admin ADMIN\n	persist_config off\n	auto_https off\n}\nhttp://:0 {\n	bind 127.0.0.1\n	feature_flags\n	respond ok\n}\n", "")
	if out := c.api("GET", "flags", "", 200); marshal(out["flags"]) != "[]" || marshal(out["degraded"]) != "[]" {
		t.Errorf("an app without sources answers %v", out)
	}
	c.refused("GET", "/feature_flags/flags/a", "", http.StatusNotFound, `flag "a" is not defined`)

	load(canarySite, `{"a": {"active": true}}`)
	c.api("POST", "flags/a/disable", "", 200)
	load(strings.Replace(canarySite, "STATE", "DIR/other", 1), `{"a": {"active": true}, "b": {"active": true}}`)
	if got := c.api("GET", "flags/a", "", 200)["status"]; got != "on" {
		t.Errorf("with another state directory a is %v, want on", got)
	}
	c.api("POST", "flags/b/disable", "", 200)
	load(canarySite, `{"a": {"active": true}, "b": {"active": true}}`)
	if a, b := c.api("GET", "flags/a", "", 200)["status"], c.api("GET", "flags/b", "", 200)["status"]; a != "disabled" || b != "on" {
		t.Errorf("back at the first state directory a is %v and b is %v", a, b)
	}
}

// The endpoint answers before the first config, in a process of its own.
func TestAdminBeforeTheFirstConfig(t *testing.T) {
	p := newProcess(t, "", "", nil)
	cmd := newCaddy(p, "run")
	cmd.Dir = p.dir + "/" // where no Caddyfile is found
	if err := os.Remove(p.file); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "CADDY_ADMIN="+p.admin)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := &instance{t: t, admin: "http://" + p.admin}
	eventually(t, 10*time.Second, "the admin endpoint does not answer", func() bool {
		_, err := try(c.admin + "/config/")
		return err == nil
	})
	c.refused("GET", "/feature_flags/flags", "", http.StatusServiceUnavailable, "not configured")
	p.said(1, p.at("list"), "feature_flags is not configured")
}
