package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// clientFlags are definitions of which clients may see some; each rule, name and
// person in them that they must not see has `hidden` in it.
const clientFlags = `{
	"static_on": {"active": true, "client": true},
	"static_off": {"active": false, "client": true, "metadata": {"owner": "hidden owner", "description": "hidden text"}},
	"split": {"active": true, "client": true, "percentage_rollout": 50},
	"listed": {"active": true, "client": true, "users": ["alice", "hidden-bob"]},
	"regional": {"active": true, "client": true, "regions": ["RO", "hidden-region"]},
	"premium": {"active": true, "client": true, "rules": [{"name": "hidden_rule", "when": "plan == \"premium\" || plan == \"hidden plan\"", "serve": "gold"}],
		"variants": {"gold": {"weight": 0, "value": {"colour": "#fc0", "depth": 2}}, "plain": {"weight": 100, "value": "grey"}}},
	"sized": {"active": true, "client": true, "variants": {"big": {"weight": 100, "value": 12.5}}},
	"unvalued": {"active": true, "client": true, "variants": {"blue": {"weight": 100}}},
	"list": {"active": true, "client": true, "variants": {"all": {"weight": 100, "value": [1, 2]}}},
	"parted": {"active": true, "client": true, "depends_on": ["hidden_parent"]},
	"hidden_parent": {"active": true},
	"hidden_flag": {"active": true, "rules": [{"name": "hidden_too", "when": "region == \"XX\"", "serve": "on"}]}
}`

const ofrepSite = `	feature_flags {
		context {
			user_id      jwt    sub
			user_id      header X-User-ID
			account_type jwt    plan
			region       header X-Region
		}
		jwt {
			from header Authorization
			secret SECRET
			algorithms HS256
		}
	}
	feature_flags_ofrep {
		OPTIONS
	}
	reverse_proxy APP
}
`

// clients starts a site with the protocol.
func clients(t *testing.T, options string) *instance {
	t.Helper()
	return serve(t, site+ofrepSite, clientFlags, map[string]string{"OPTIONS": options, "SECRET": `"` + tokenSecret + `"`, "APP": host(echo(t, "app"))})
}

// post sends a body to the first site.
func (c *instance) post(path, body string, headers ...string) reply {
	c.t.Helper()
	return c.do(http.MethodPost, path, body, headers...)
}

func (c *instance) do(method, path, body string, headers ...string) reply {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url(0)+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

const (
	allFlags = "/ofrep/v1/evaluate/flags"
	alice    = `{"context": {"targetingKey": "alice"}}`
)

// clientFlag is what OFREP tells about one flag.
type clientFlag struct {
	Key          string
	Value        any
	Reason       string
	Variant      string
	ErrorCode    string
	ErrorDetails string
}

func (r reply) told(t *testing.T) (out clientFlag) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("status %d, %v: %q", r.status, err, r.body)
	}
	return out
}

// bulk is the answer for all flags.
type bulk struct {
	Flags        []clientFlag
	EventStreams []struct {
		Type     string
		Endpoint struct{ RequestURI string }
	}
}

func (r reply) bulk(t *testing.T) map[string]clientFlag {
	t.Helper()
	var b bulk
	if err := json.Unmarshal([]byte(r.body), &b); err != nil || r.status != http.StatusOK {
		t.Fatalf("status %d, %v: %q", r.status, err, r.body)
	}
	out := map[string]clientFlag{}
	for _, f := range b.Flags {
		out[f.Key] = f
	}
	return out
}

// stream returns the address of the stream that goes with an answer.
func (r reply) streamAddress(t *testing.T) string {
	t.Helper()
	var b bulk
	if err := json.Unmarshal([]byte(r.body), &b); err != nil || len(b.EventStreams) != 1 || b.EventStreams[0].Type != "sse" {
		t.Fatalf("%v: %s", err, r.body)
	}
	return b.EventStreams[0].Endpoint.RequestURI
}

func TestOFREPSingle(t *testing.T) {
	c := clients(t, "")
	for _, f := range []struct {
		key, context    string
		reason, variant string
		value           string
	}{
		{"static_on", "{}", "STATIC", "on", "true"},
		{"static_off", "{}", "DISABLED", "off", "false"},
		{"listed", `{"targetingKey": "alice"}`, "TARGETING_MATCH", "on", "true"},
		{"listed", `{"user_id": "alice", "targetingKey": "eve"}`, "TARGETING_MATCH", "on", "true"},
		{"listed", `{"targetingKey": "eve"}`, "DEFAULT", "off", "false"},
		{"regional", `{"region": "RO"}`, "STATIC", "on", "true"},
		{"regional", `{"region": "US"}`, "DEFAULT", "off", "false"},
		{"split", `{"targetingKey": 7}`, "SPLIT", "off", "false"},
		{"premium", `{"plan": "premium", "targetingKey": "x"}`, "TARGETING_MATCH", "gold", `{"colour":"#fc0","depth":2}`},
		{"premium", `{"plan": "free", "targetingKey": "x"}`, "STATIC", "plain", `"grey"`},
		{"sized", `{}`, "STATIC", "big", "12.5"},
		{"unvalued", `{}`, "STATIC", "blue", "null"},
		{"parted", `{}`, "STATIC", "on", "true"},
	} {
		t.Run(f.key+" "+f.context, func(t *testing.T) {
			r := c.post(allFlags+"/"+f.key, `{"context": `+f.context+`}`)
			got := r.told(t)
			value, _ := json.Marshal(got.Value)
			if r.status != http.StatusOK || got.Key != f.key || got.Reason != f.reason || got.Variant != f.variant || string(value) != f.value {
				t.Errorf("status %d: %s", r.status, r.body)
			}
			if f.value == "null" && strings.Contains(r.body, `"value"`) {
				t.Errorf("a variant without a value has one: %s", r.body)
			}
			if r.header.Get("Content-Type") != "application/json" || r.header.Get("Cache-Control") != "private, no-cache" || !strings.Contains(r.header.Get("Vary"), "Authorization, Cookie") {
				t.Errorf("headers %v", r.header)
			}
		})
	}
	// The server side decides the same.
	for i := range 20 {
		user := fmt.Sprint("u", i)
		server := c.get("/", "X-User-ID", user).echoed(t).Header.Get("X-Feature-Split")
		if got := c.post(allFlags+"/split", `{"context": {"targetingKey": "`+user+`"}}`).told(t); got.Variant != server {
			t.Errorf("%s: clients get %s, the application %s", user, got.Variant, server)
		}
	}
}

func TestOFREPRefusals(t *testing.T) {
	c := clients(t, "max_body 2KB")
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprintf(`"a%d":1`, i)
	}
	for _, f := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"unknown", "/nosuch", alice, 404, "FLAG_NOT_FOUND"},
		{"not for clients", "/hidden_flag", alice, 404, "FLAG_NOT_FOUND"},
		{"a key with slashes", "/a/b%2Fc", alice, 404, "FLAG_NOT_FOUND"},
		{"a key of other letters", "/%F0%9F%9A%80%22%3Cx%3E", alice, 404, "FLAG_NOT_FOUND"},
		{"no targeting key", "/split", "{}", 400, "TARGETING_KEY_MISSING"},
		{"no targeting key, empty body", "/split", "", 400, "TARGETING_KEY_MISSING"},
		{"null context", "/split", `{"context": null}`, 400, "TARGETING_KEY_MISSING"},
		{"value that is a list", "/list", alice, 400, "GENERAL"},
		{"no JSON", "/split", "targetingKey=alice", 400, "PARSE_ERROR"},
		{"half of it", "/split", `{"context": {"targ`, 400, "PARSE_ERROR"},
		{"more behind it", "/split", alice + "x", 400, "PARSE_ERROR"},
		{"a list", "/split", `[]`, 400, "PARSE_ERROR"},
		{"context is text", "/split", `{"context": "alice"}`, 400, "INVALID_CONTEXT"},
		{"context is a list", "/split", `{"context": ["alice"]}`, 400, "INVALID_CONTEXT"},
		{"targeting key is an object", "/split", `{"context": {"targetingKey": {"a": 1}}}`, 400, "INVALID_CONTEXT"},
		{"targeting key is true", "/split", `{"context": {"targetingKey": true}}`, 400, "INVALID_CONTEXT"},
		{"too large", "/split", `{"context": {"targetingKey": "` + strings.Repeat("a", 2048) + `"}}`, 413, "PARSE_ERROR"},
		{"deep", "/split", `{"context": {"targetingKey": "a", "x": ` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}}`, 200, ""},
		{"all: no JSON", "", "x", 400, "PARSE_ERROR"},
		{"all: context is a number", "", `{"context": 7}`, 400, "INVALID_CONTEXT"},
		{"all: too large", "", strings.Repeat(" ", 3000), 413, "PARSE_ERROR"},
	} {
		t.Run(f.name, func(t *testing.T) {
			r := c.post(allFlags+f.path, f.body, "Content-Type", "application/json; charset=utf-8")
			got := r.told(t)
			if r.status != f.status || got.ErrorCode != f.code || f.code != "" && got.ErrorDetails == "" {
				t.Errorf("status %d: %s", r.status, r.body)
			}
			if f.path == "" != (got.Key == "") {
				t.Errorf("key %q for %s", got.Key, f.path)
			}
		})
	}
	wide := clients(t, "")
	if r := wide.post(allFlags, `{"context": {`+strings.Join(many, ",")+`}}`); r.status != 400 || r.told(t).ErrorCode != "INVALID_CONTEXT" {
		t.Errorf("300 attributes: %d %s", r.status, r.body)
	}
	for what, context := range map[string]string{
		"a list":          `{"groups": [` + strings.TrimSuffix(strings.Repeat(`"g",`, 300), ",") + `]}`,
		"lists in a list": `{"groups": [` + strings.TrimSuffix(strings.Repeat(`["g",1],`, 100), ",") + `]}`,
		"another key":     `{"user_id": ["alice"]}`,
	} {
		if r := wide.post(allFlags, `{"context": `+context+`}`); r.status != 400 || r.told(t).ErrorCode != "INVALID_CONTEXT" {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	if r := wide.post(allFlags, `{"CONTEXT": {"targetingKey": "alice"}}`); r.bulk(t)["listed"].Variant != "off" {
		t.Errorf("CONTEXT: %s", r.body)
	}
	if r := wide.post(allFlags+"//", alice); r.bulk(t)["listed"].Variant != "on" {
		t.Errorf("two slashes: %s", r.body)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if r := wide.do(method, allFlags, ""); r.status != 405 || r.header.Get("Allow") != "POST, OPTIONS" {
			t.Errorf("%s: %d %v", method, r.status, r.header)
		}
	}
	if r := wide.get("/ofrep/v1/nothing"); r.status != 404 || !strings.Contains(r.body, "errorDetails") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := wide.get("/ofrep/v2"); r.echoed(t).Name != "app" {
		t.Errorf("%s", r.body)
	}
	if r := wide.post(allFlags+"/static_on/", alice); r.status != 200 {
		t.Errorf("with a slash at the end: %d %s", r.status, r.body)
	}
	if r := wide.post(allFlags+"/", alice); len(r.bulk(t)) != 10 {
		t.Errorf("all, with a slash at the end: %s", r.body)
	}
}

// Whatever a client asks, it learns nothing but its own decisions.
func TestOFREPTellsNothingElse(t *testing.T) {
	c := clients(t, "")
	texts := []string{}
	for _, context := range []string{`{}`, `{"targetingKey": "alice", "region": "RO", "plan": "premium"}`, `{"targetingKey": "someone", "region": {"a": []}}`} {
		r := c.post(allFlags, `{"context": `+context+`}`)
		texts = append(texts, r.body, fmt.Sprint(r.header))
		for _, key := range []string{"static_off", "listed", "regional", "premium", "parted", "hidden_flag", "hidden_parent"} {
			r := c.post(allFlags+"/"+key, `{"context": `+context+`}`)
			texts = append(texts, strings.ReplaceAll(r.body, `"key":"`+key+`"`, ""), fmt.Sprint(r.header))
		}
	}
	texts = append(texts, c.get("/ofrep/v1/events").body, c.get("/ofrep/v1/x").body)
	for _, text := range texts {
		for _, secret := range []string{"hidden", "bob", "someone", "rule", "SHA", c.dir} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
	}
	if _, there := c.post(allFlags, alice).bulk(t)["hidden_flag"]; there {
		t.Error("a flag that is not for clients")
	}
}

// What the site knows about a person counts, whatever the client says of itself.
func TestOFREPVerifiedAttributes(t *testing.T) {
	c := clients(t, "")
	token := "Bearer " + hs256(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()})
	mallory := `{"context": {"targetingKey": "mallory", "user_id": "mallory", "region": "US"}}`
	if got := c.post(allFlags+"/listed", mallory, "Authorization", token).told(t); got.Variant != "on" {
		t.Errorf("the token says alice, the body mallory: %+v", got)
	}
	if got := c.post(allFlags+"/listed", alice, "X-User-ID", "mallory").told(t); got.Variant != "off" {
		t.Errorf("the header says mallory, the body alice: %+v", got)
	}
	if got := c.post(allFlags+"/regional", mallory, "X-Region", "RO").told(t); got.Variant != "on" {
		t.Errorf("the header says RO, the body US: %+v", got)
	}
	if got := c.post(allFlags+"/listed", alice, "Authorization", token[:len(token)-4]+"AAAA").told(t); got.Variant != "on" {
		t.Errorf("an anonymous client may say who it is: %+v", got)
	}
	strict := serve(t, site+strings.Replace(ofrepSite, "algorithms HS256", "algorithms HS256\n\t\t\ton_invalid reject", 1), clientFlags,
		map[string]string{"OPTIONS": "cors https://app.example", "SECRET": `"` + tokenSecret + `"`, "APP": host(echo(t, "app"))})
	for _, path := range []string{allFlags, allFlags + "/listed"} {
		if r := strict.post(path, alice, "Authorization", token[:len(token)-4]+"AAAA", "Origin", "https://app.example"); r.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
			t.Errorf("%s with a bad token from a page of elsewhere: %d %v", path, r.status, r.header)
		}
		if r := strict.post(path, alice, "Authorization", token[:len(token)-4]+"AAAA"); r.status != 401 || r.body != "" || r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s with a bad token: %d %s", path, r.status, r.body)
		}
	}
	narrow := clients(t, "accept region")
	if got := narrow.post(allFlags+"/listed", alice).told(t); got.Variant != "off" {
		t.Errorf("user_id is not accepted: %+v", got)
	}
	if got := narrow.post(allFlags+"/regional", `{"context": {"region": "RO"}}`).told(t); got.Variant != "on" {
		t.Errorf("region is accepted: %+v", got)
	}
}

// An answer is the same as long as the tag is, whatever the context.
func TestOFREPETag(t *testing.T) {
	c := clients(t, "")
	tag := func(context string) (string, string) {
		r := c.post(allFlags, `{"context": `+context+`}`)
		flags, _, _ := strings.Cut(r.body, `,"eventStreams"`)
		return r.header.Get("ETag"), flags
	}
	first, body := tag(`{"targetingKey": "alice", "region": "RO"}`)
	if first == "" || !strings.HasPrefix(first, `"`) {
		t.Fatalf("ETag %q", first)
	}
	if again, same := tag(`{"region": "RO", "targetingKey": "alice"}`); again != first || same != body {
		t.Error("another order of attributes is another answer")
	}
	// The trap: clients keep the tag when an attribute changes.
	if other, _ := tag(`{"targetingKey": "alice", "region": "US"}`); other == first {
		t.Error("another region, the same tag")
	}
	if r := c.post(allFlags, `{"context": {"targetingKey": "alice", "region": "US"}}`, "If-None-Match", first); r.status != 200 || r.bulk(t)["regional"].Variant != "off" {
		t.Errorf("another region with the tag of before: %d %s", r.status, r.body)
	}
	for _, given := range []string{first, "W/" + first, `"x", ` + first, "*"} {
		r := c.post(allFlags, `{"context": {"targetingKey": "alice", "region": "RO"}}`, "If-None-Match", given)
		if r.status != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != first {
			t.Errorf("If-None-Match: %s: %d %s %v", given, r.status, r.body, r.header)
		}
	}
	c.api("POST", "flags/static_on/disable", "{}", 200)
	if r := c.post(allFlags, `{"context": {"targetingKey": "alice", "region": "RO"}}`, "If-None-Match", first); r.status != 200 || r.bulk(t)["static_on"].Reason != "DISABLED" {
		t.Errorf("after a change of state: %d %s", r.status, r.body)
	}
	c.api("POST", "flags/static_on/reset", "{}", 200)
	if again, _ := tag(`{"targetingKey": "alice", "region": "RO"}`); again != first {
		t.Error("back to what it was, and another tag")
	}
	c.write("features.json", strings.Replace(clientFlags, `"value": 12.5`, `"value": 13`, 1))
	eventually(t, 3*time.Second, "the new definitions are not in force", func() bool {
		r := c.post(allFlags, `{"context": {"targetingKey": "alice", "region": "RO"}}`, "If-None-Match", first)
		return r.status == 200 && r.bulk(t)["sized"].Value == 13.0
	})
}

func TestOFREPRateLimit(t *testing.T) {
	c := clients(t, "rate_limit 3 1h")
	for i := range 5 {
		r := c.post(allFlags, alice)
		if want := map[bool]int{true: 200, false: 429}[i < 3]; r.status != want {
			t.Fatalf("request %d: %d %s", i+1, r.status, r.body)
		}
		if wait := r.header.Get("Retry-After"); i >= 3 && wait != "1200" && wait != "1199" {
			t.Errorf("Retry-After: %s, want a third of an hour", wait)
		}
	}
	if r := c.get("/"); r.status != 200 {
		t.Errorf("the rest of the site: %d", r.status)
	}
	if r := c.do(http.MethodOptions, allFlags, ""); r.status != 204 {
		t.Errorf("OPTIONS: %d", r.status)
	}
}

func TestOFREPCORS(t *testing.T) {
	c := clients(t, "cors https://app.example")
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,x-anything,if-none-match"}
	r := c.do(http.MethodOptions, allFlags, "", append([]string{"Origin", "https://app.example"}, preflight...)...)
	if h := r.header; r.status != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Headers") != "content-type,x-anything,if-none-match" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("%d %v", r.status, r.header)
	}
	r = c.post(allFlags, alice, "Origin", "https://app.example")
	if h := r.header; h.Get("Access-Control-Allow-Origin") != "https://app.example" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "ETag") || !slices.Contains(h.Values("Vary"), "Origin") {
		t.Errorf("%v", r.header)
	}
	for _, origin := range []string{"https://evil.example", "null", "https://app.example.evil.example", "http://app.example"} {
		for _, r := range []reply{c.post(allFlags, alice, "Origin", origin), c.do(http.MethodOptions, allFlags, "", append([]string{"Origin", origin}, preflight...)...)} {
			for name := range r.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s is told %s: %v", origin, name, r.header[name])
				}
			}
		}
	}
	if r := clients(t, "").post(allFlags, alice, "Origin", "https://app.example"); r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without cors: %v", r.header)
	}
	r = clients(t, "cors *").post(allFlags, alice, "Origin", "https://any.example")
	if h := r.header; h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("any origin: %v", h)
	}
}

// refetches opens a stream; each event is told by its tag, and the end by "end".
func (c *instance) refetches(address, seen string) (events <-chan string, retry *string, leave func()) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(0)+address, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if seen != "" {
		req.Header.Set("Last-Event-ID", seen)
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		c.t.Fatalf("status %d %v", resp.StatusCode, resp.Header)
	}
	c.t.Cleanup(func() { cancel(); resp.Body.Close() })
	out, again, ready := make(chan string, 64), "", make(chan struct{})
	go func() {
		defer close(out)
		lines := bufio.NewScanner(resp.Body)
		id, event := "", ""
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "":
				if value == "watching" {
					close(ready)
				}
			case "id":
				id = value
			case "event":
				event = value
			case "retry":
				again = value
			case "data":
				var d struct{ Type, ETag string }
				if err := json.Unmarshal([]byte(value), &d); err != nil || d.Type != "refetchEvaluation" || event != "message" || d.ETag != id {
					out <- "bad: " + value
				}
				out <- id
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(5 * time.Second):
		c.t.Fatal("the stream does not begin")
	}
	return out, &again, cancel
}

// betweenEvents is the least time between two events of a stream.
const betweenEvents = time.Second

// nextID waits for the next event of a stream.
func nextID(t *testing.T, events <-chan string) string {
	t.Helper()
	select {
	case id, ok := <-events:
		if !ok || strings.HasPrefix(id, "bad") {
			t.Fatalf("the stream ended, or told %q", id)
		}
		return id
	case <-time.After(5 * time.Second):
		t.Fatal("no event")
	}
	return ""
}

func TestOFREPStream(t *testing.T) {
	c := clients(t, "")
	address := c.post(allFlags, alice).streamAddress(t)
	if again := c.post(allFlags, alice).streamAddress(t); again != address {
		t.Errorf("the address changes with each answer: %s, %s", address, again)
	}
	events, retry, _ := c.refetches(address, "")
	nextID(t, events) // what has changed since the answer is not known: ask again
	time.Sleep(betweenEvents)
	begun := time.Now()
	c.api("POST", "flags/static_on/disable", "{}", 200)
	first := nextID(t, events)
	if took := time.Since(begun); took > betweenEvents*9/10 {
		t.Errorf("told after %v", took)
	}
	// What clients cannot see the effect of is not told.
	c.api("POST", "flags/hidden_flag/disable", "{}", 200)
	select {
	case id := <-events:
		t.Errorf("told of another flag's change: %s", id)
	case <-time.After(1500 * time.Millisecond):
	}
	// What they depend on is.
	c.api("POST", "flags/hidden_parent/disable", "{}", 200)
	second := nextID(t, events)
	if first == second {
		t.Error("two events have one id")
	}
	// Whoever was away for a moment hears of what it has missed, and of nothing else.
	missed, _, leave := c.refetches(address, first)
	if id := nextID(t, missed); id != second {
		t.Errorf("missed %s, told %s", second, id)
	}
	leave()
	quiet, _, leave := c.refetches(address, second)
	select {
	case id := <-quiet:
		t.Errorf("told of nothing: %s", id)
	case <-time.After(300 * time.Millisecond):
	}
	leave()
	// A burst of changes is one event or two.
	for range 10 {
		c.api("POST", "flags/static_on/enable", "{}", 200)
		c.api("POST", "flags/static_on/disable", "{}", 200)
	}
	c.api("POST", "flags/static_on/enable", "{}", 200)
	time.Sleep(1500 * time.Millisecond)
	if n := len(events); n < 1 || n > 3 {
		t.Errorf("%d events for a burst of changes", n)
	}
	for len(events) > 0 {
		second = <-events
	}
	// A reload says when to come back, and ends the stream; the address still holds.
	c.text += "\n"
	c.text = strings.Replace(c.text, "grace_period 2s", "grace_period 3s", 1)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	for range events {
	}
	if *retry == "" {
		t.Error("no retry before the reload ends the stream")
	}
	back, _, _ := c.refetches(address, second)
	c.api("POST", "flags/static_on/reset", "{}", 200)
	nextID(t, back)
}

// A stream opens to nobody without an address that was told lately.
func TestOFREPStreamTokens(t *testing.T) {
	c := clients(t, "streams 10")
	address := c.post(allFlags, alice).streamAddress(t)
	path, token, _ := strings.Cut(address, "?token=")
	end, sum, _ := strings.Cut(token, ".")
	for name, bad := range map[string]string{
		"none": "", "cut": token[:len(token)-1], "longer": token + "A", "no signature": end, "another end": "zzzzzz." + sum, "only a dot": ".",
		"one letter": end + "." + map[bool]string{true: "B", false: "A"}[sum[0] == 'A'] + sum[1:], "huge": strings.Repeat("9", 5000) + "." + sum,
	} {
		if r := c.get(path + "?token=" + bad); r.status != 401 || strings.Contains(r.body, "{\"flags\"") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := c.do(http.MethodGet, address, "", "Host", "other.example"); r.status != 401 {
		t.Errorf("on another host: %d", r.status)
	}
	if r := c.do(http.MethodPost, address, ""); r.status != 405 {
		t.Errorf("POST: %d", r.status)
	}
	_, _, leave := c.refetches(address, "")
	if r := c.get(address); r.status != 429 || r.header.Get("Retry-After") != "30" {
		t.Errorf("a second stream of one client, with 10 for all: %d", r.status)
	}
	leave()
	eventually(t, 3*time.Second, "a stream that ended still counts", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, c.url(0)+address, nil)
		resp, err := (&http.Client{}).Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200
	})
	off := clients(t, "streams off")
	if r := off.post(allFlags, alice); strings.Contains(r.body, "eventStreams") {
		t.Errorf("streams are off: %s", r.body)
	}
	if r := off.get(address); r.status != 404 {
		t.Errorf("streams are off: %d", r.status)
	}
}

// Behind handle_path the stream's address has the path that was taken off.
func TestOFREPUnderAPrefix(t *testing.T) {
	c := serve(t, site+"	handle_path /flags/* {\n		feature_flags_ofrep\n	}\n}\n", clientFlags, nil)
	r := c.post("/flags"+allFlags, alice)
	address := r.streamAddress(t)
	if !strings.HasPrefix(address, "/flags/ofrep/v1/events?token=") || r.bulk(t)["listed"].Variant != "on" {
		t.Fatalf("%s", r.body)
	}
	events, _, _ := c.refetches(address, "")
	c.api("POST", "flags/static_on/disable", "{}", 200)
	nextID(t, events)
}

// Anonymous people keep the id of their cookie; who has none may say who it is, and
// gets one else.
func TestOFREPSticky(t *testing.T) {
	c := serve(t, site+"	feature_flags {\n		context {\n			user_id sticky\n		}\n	}\n	feature_flags_ofrep\n	reverse_proxy APP\n}\n", clientFlags, map[string]string{"APP": host(echo(t, "app"))})
	if got := c.post(allFlags, alice); got.header.Get("Set-Cookie") != "" || got.bulk(t)["listed"].Variant != "on" {
		t.Errorf("who says who it is: %v %s", got.header, got.body)
	}
	r := c.post(allFlags, "{}")
	line := r.header.Get("Set-Cookie")
	if !strings.HasPrefix(line, "feature_flags_id=") || r.bulk(t)["split"].ErrorCode != "" {
		t.Fatalf("%v %s", r.header, r.body)
	}
	cookie, _, _ := strings.Cut(line, ";")
	same := c.get("/", "Cookie", cookie).echoed(t).Header.Get("X-Feature-Split")
	if got := c.post(allFlags, alice, "Cookie", cookie).bulk(t)["split"].Variant; got != same || got != r.bulk(t)["split"].Variant {
		t.Errorf("with the cookie clients get %s, the application %s", got, same)
	}
}

// What the plugin answers itself is no exposure: guards learn nothing from it.
func TestOFREPIsNoExposure(t *testing.T) {
	c := clients(t, "")
	for i := range 50 {
		c.post(allFlags, fmt.Sprintf(`{"context": {"targetingKey": "u%d"}}`, i), "X-User-ID", fmt.Sprint("u", i))
	}
	series, _ := scrape(t, c.admin+"/metrics")
	for name, value := range series {
		if strings.HasPrefix(name, "caddy_feature_flags_requests_total") && value > 0 {
			t.Errorf("%s is %v", name, value)
		}
	}
	if got := series[`caddy_feature_flags_ofrep_requests_total{call="bulk",code="200"}`]; got < 50 {
		t.Errorf("%v requests counted", got)
	}
	if asked := c.api("GET", "flags/split", "", 200)["last_asked"]; asked == nil {
		t.Error("nobody has asked for the flag")
	}
	for _, e := range c.entries(50) {
		if len(e.Flags) > 0 {
			t.Fatalf("access log: %+v", e)
		}
	}
}
