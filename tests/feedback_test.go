package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const feedbackSite = `	feature_flags {
		context {
			user_id header X-User-ID
			user_id sticky
		}
	}
	feature_flags_feedback {
		OPTIONS
	}
	reverse_proxy APP
}
`

func feedback(t *testing.T, options, features string) *instance {
	t.Helper()
	return serve(t, site+feedbackSite, features, map[string]string{"OPTIONS": options, "APP": host(echo(t, "app"))})
}

// votes reads what the API says about a flag's feedback.
type votes struct {
	Total    int
	Variants map[string]struct {
		Ratings   map[string]int
		Good, Bad int
		Mean      *float64
	}
	LogE     *float64 `json:"log_e"`
	Worse    bool
	Holds    bool
	Feedback []struct{ Variant, Rating, Comment string }
}

func (c *instance) votes(flag string) (v votes) {
	c.t.Helper()
	r := c.call("GET", "/feature_flags/feedback/"+flag, "")
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.status != 200 {
		c.t.Fatalf("%d %v %s", r.status, err, r.body)
	}
	return v
}

func TestFeedback(t *testing.T) {
	c := feedback(t, "rate_limit off", `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0}, "other": {"active": true}}`)
	say := func(user, body string, headers ...string) reply {
		t.Helper()
		return c.post("/api/feedback", body, append([]string{"X-User-ID", user, "Content-Type", "application/json"}, headers...)...)
	}
	counted := func() float64 {
		series, _ := scrape(t, c.admin+"/metrics")
		return series[`caddy_feature_flags_feedback_total{flag="new_ui",rating="2",variant="off"}`]
	}
	before := counted() // by other tests of this process
	if r := say("alice", `{"flag": "new_ui", "rating": 4, "comment": "  nicer\u0000 than\r\n before \u202e"}`); r.status != 202 || !strings.Contains(r.body, `"durable":true`) {
		t.Fatalf("%d %s", r.status, r.body)
	}
	say("bob", `{"flag": "new_ui", "rating": "down"}`)
	say("bob", `{"flag": "other", "rating": "up"}`)
	say("bob", `{"flag": "new_ui", "rating": 2, "comment": "I want it"}`) // takes the place of the first
	form := func(contentType, body string) reply {
		return c.post("/feedback", body, "X-User-ID", "carol", "Content-Type", contentType)
	}
	if r := form("application/x-www-form-urlencoded", "flag=new_ui&rating=5&comment=so+la+la"); r.status != 200 || r.body != "Thank you.\n" {
		t.Errorf("a form: %d %s", r.status, r.body)
	}
	if r := form("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"flag\"\r\n\r\nother\r\n--x\r\nContent-Disposition: form-data; name=\"rating\"\r\n\r\nup\r\n--x--\r\n"); r.status != 200 {
		t.Errorf("a form of parts: %d %s", r.status, r.body)
	}
	eventually(t, 5*time.Second, "the summary is not there", func() bool { return c.votes("new_ui").Total == 3 })
	v := c.votes("new_ui")
	if on, off := v.Variants["on"], v.Variants["off"]; on.Good != 1 || *on.Mean != 4 || off.Good != 1 || off.Bad != 1 || off.Ratings["2"] != 1 || off.Ratings["down"] != 0 || v.LogE != nil || v.Holds {
		t.Errorf("%+v", v)
	}
	if f := v.Feedback; len(f) != 3 || f[0].Comment != "so la la" || f[1].Comment != "I want it" || f[1].Variant != "off" || f[2].Comment != "nicer  than\n before" || f[2].Variant != "on" {
		t.Errorf("%+v", f)
	}
	if all := c.call("GET", "/feature_flags/feedback/new_ui?limit=1", ""); strings.Count(all.body, `"rating"`) != 1 {
		t.Errorf("with a limit: %s", all.body)
	}
	// Who said it is nowhere: not in the API, not on disk.
	stored, err := os.ReadFile(filepath.Join(c.dir, "state", "feedback.journal"))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"API": c.call("GET", "/feature_flags/feedback/new_ui", "").body, "disk": string(stored), "log": c.file("caddy.log"), "audit": c.call("GET", "/feature_flags/audit", "").body} {
		for _, who := range []string{"alice", "carol", "127.0.0.1"} {
			if strings.Contains(text, who) && (where != "log" || who != "127.0.0.1") {
				t.Errorf("%s is in the %s", who, where)
			}
		}
	}
	// It outlives a reload, and so do the summaries.
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if again := c.votes("new_ui"); again.Total != 3 {
		t.Errorf("after a reload: %+v", again)
	}
	// Everything else is the application's.
	for _, r := range []reply{c.get("/feedback"), c.post("/feedbacks", "x")} {
		if r.status != 200 || r.echoed(t).Header.Get("X-Feature-New-Ui") != "off" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if got := counted() - before; got != 1 {
		t.Errorf("counted %v", got)
	}
	series, _ := scrape(t, c.admin+"/metrics")
	for name := range series {
		if strings.HasPrefix(name, "caddy_feature_flags_requests_total") && strings.Contains(name, "TARGETING_MATCH") {
			t.Errorf("feedback is an exposure: %s", name)
		}
	}
}

func TestFeedbackRefusals(t *testing.T) {
	c := feedback(t, "rate_limit off\n		max_comment 20", `{"new_ui": {"active": true}}`)
	for name, f := range map[string]struct {
		body, kind string
		status     int
		words      string
	}{
		"empty":                {"", "application/json", 400, "empty"},
		"no JSON":              {"rating=5", "application/json", 400, "JSON"},
		"half":                 {`{"flag": "new`, "application/json", 400, "JSON"},
		"a list":               {`[]`, "application/json", 400, "object"},
		"two objects":          {`{"flag": "new_ui", "rating": 5}{}`, "application/json", 400, "after"},
		"no flag":              {`{"rating": 5}`, "application/json", 400, "flag"},
		"unknown flag":         {`{"flag": "nosuch", "rating": 5}`, "application/json", 404, "flag"},
		"flag is a number":     {`{"flag": 7, "rating": 5}`, "application/json", 400, "flag"},
		"no rating":            {`{"flag": "new_ui"}`, "application/json", 400, "rating"},
		"rating 0":             {`{"flag": "new_ui", "rating": 0}`, "application/json", 400, "rating"},
		"rating 6":             {`{"flag": "new_ui", "rating": 6}`, "application/json", 400, "rating"},
		"rating 4.5":           {`{"flag": "new_ui", "rating": 4.5}`, "application/json", 400, "rating"},
		"rating true":          {`{"flag": "new_ui", "rating": true}`, "application/json", 400, "rating"},
		"rating is an object":  {`{"flag": "new_ui", "rating": {"a": 1}}`, "application/json", 400, "rating"},
		"rating great":         {`{"flag": "new_ui", "rating": "great"}`, "application/json", 400, "rating"},
		"long comment":         {`{"flag": "new_ui", "rating": 5, "comment": "` + strings.Repeat("é", 21) + `"}`, "application/json", 400, "comment"},
		"unknown field":        {`{"flag": "new_ui", "rating": 5, "email": "a@b"}`, "application/json", 400, "email"},
		"variant of their own": {`{"flag": "new_ui", "rating": 5, "variant": "on"}`, "application/json", 400, "variant"},
		"huge":                 {`{"flag": "new_ui", "rating": 5, "comment": "` + strings.Repeat("x", 70_000) + `"}`, "application/json", 413, "bytes"},
		"huge form":            {"flag=new_ui&rating=5&comment=" + strings.Repeat("x", 70_000), "application/x-www-form-urlencoded", 413, "bytes"},
		"form, field twice":    {"flag=new_ui&rating=5&rating=1", "application/x-www-form-urlencoded", 400, "twice"},
		"form, unknown field":  {"flag=new_ui&rating=5&x=1", "application/x-www-form-urlencoded", 400, "unknown"},
		"form, bad escapes":    {"flag=%zz", "application/x-www-form-urlencoded", 400, "form"},
		"parts without end":    {"--x\r\nContent-Disposition: form-data; name=\"flag\"\r\n\r\nnew_ui", "multipart/form-data; boundary=x", 400, "form"},
		"a file":               {"--x\r\nContent-Disposition: form-data; name=\"flag\"; filename=\"a\"\r\n\r\nnew_ui\r\n--x--\r\n", "multipart/form-data; boundary=x", 400, "files"},
		"text":                 {"hello", "text/plain", 415, "json"},
		"XML":                  {"<a/>", "application/xml", 415, "json"},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.post("/feedback", f.body, "Content-Type", f.kind, "X-User-ID", "alice")
			var said struct{ Error string }
			if err := json.Unmarshal([]byte(r.body), &said); err != nil || r.status != f.status || !strings.Contains(said.Error, f.words) {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	if r := c.post("/feedback", `{"flag": "new_ui", "rating": 5, "comment": "`+strings.Repeat("é", 20)+`"}`); r.status != 202 {
		t.Errorf("as long as it may be: %d %s", r.status, r.body)
	}
	// Pages of others cannot post in somebody's name.
	good := `{"flag": "new_ui", "rating": 1}`
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		if r := c.post("/feedback", good, headers...); r.status != 403 {
			t.Errorf("%v: %d", headers, r.status)
		}
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", c.url(0)}, nil} {
		if r := c.post("/feedback", good, headers...); r.status != 202 {
			t.Errorf("%v: %d", headers, r.status)
		}
	}
	listed := feedback(t, "cors https://app.example", `{"new_ui": {"active": true}}`)
	if r := listed.post("/feedback", good, "Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"); r.status != 202 || r.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("a listed origin: %d %v", r.status, r.header)
	}
	if r := listed.do(http.MethodOptions, "/feedback", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST"); r.status != 204 || r.header.Get("Access-Control-Allow-Methods") != "POST, OPTIONS" {
		t.Errorf("before it asks: %d %v", r.status, r.header)
	}
}

// By default one address says ten things a minute.
func TestFeedbackRateLimit(t *testing.T) {
	c := feedback(t, "thanks /thank-you", `{"new_ui": {"active": true}}`)
	for i := range 12 {
		r := c.post("/feedback", "flag=new_ui&rating=up", "Content-Type", "application/x-www-form-urlencoded", "X-User-ID", fmt.Sprint(i))
		switch {
		case i < 10 && (r.status != 303 || r.header.Get("Location") != "/thank-you"):
			t.Fatalf("number %d: %d %v", i, r.status, r.header)
		case i >= 10 && (r.status != 429 || r.header.Get("Retry-After") != "6" && r.header.Get("Retry-After") != "5"):
			t.Errorf("number %d: %d %v", i, r.status, r.header)
		}
	}
}

// Anonymous people are told apart by their address, whatever id they bring.
func TestFeedbackOfNobody(t *testing.T) {
	c := feedback(t, "rate_limit off", `{"new_ui": {"active": true, "percentage_rollout": 50}}`)
	cookie := ""
	for range 3 {
		r := c.post("/feedback", `{"flag": "new_ui", "rating": 1}`)
		cookie, _, _ = strings.Cut(r.header.Get("Set-Cookie"), ";")
		if r.status != 202 || !strings.HasPrefix(cookie, "feature_flags_id=") {
			t.Fatalf("%d %v", r.status, r.header)
		}
	}
	eventually(t, 3*time.Second, "three words of one address are not one", func() bool { return c.votes("new_ui").Total == 1 })
	c.post("/feedback", `{"flag": "new_ui", "rating": 5}`, "Cookie", cookie)
	eventually(t, 3*time.Second, "a later word does not count", func() bool {
		v := c.votes("new_ui")
		return v.Total == 1 && v.Feedback[0].Rating == "5"
	})
}

// Who only says who it is speaks for its address, and never for somebody whom the site
// knows.
func TestFeedbackOfClaims(t *testing.T) {
	c := feedback(t, "rate_limit off", `{"new_ui": {"active": true, "percentage_rollout": 50}}`)
	c.post("/feedback", `{"flag": "new_ui", "rating": 5}`, "X-User-ID", "alice")
	for _, who := range []string{"alice", "bob", "carol"} {
		if r := c.post("/feedback", `{"flag": "new_ui", "rating": 1, "context": {"targetingKey": "`+who+`"}}`); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	eventually(t, 5*time.Second, "three claims of one address are not one word", func() bool { return c.votes("new_ui").Total == 2 })
	if f := c.votes("new_ui").Feedback; f[1].Rating != "5" {
		t.Errorf("somebody has spoken for alice: %+v", f)
	}
}

// Ratings that are clearly worse hold a rollout, until somebody resets the flag.
func TestFeedbackHoldsARollout(t *testing.T) {
	c := feedback(t, "rate_limit off", `{"new_ui": {"active": true, "guard": {"feedback": "hold"}, "rollout": {"steps": [50, 100], "bake": "1s", "min_requests": 1}}}`)
	for i := range 150 {
		user := fmt.Sprint("u", i)
		rating := "up"
		if c.get("/", "X-User-ID", user).echoed(t).Header.Get("X-Feature-New-Ui") == "on" {
			rating = "down"
		}
		if r := c.post("/feedback", `{"flag": "new_ui", "rating": "`+rating+`"}`, "X-User-ID", user); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	eventually(t, 5*time.Second, "the rollout is not held", func() bool {
		rollout := c.api("GET", "flags/new_ui", "", 200)["rollout"].(map[string]any)
		return rollout["reason"] == "feedback" && c.votes("new_ui").Holds
	})
	time.Sleep(2 * time.Second) // twice the bake
	if got := c.api("GET", "flags/new_ui", "", 200)["percentage"]; got != 50.0 {
		t.Errorf("at %v %%", got)
	}
	eventually(t, 10*time.Second, "nobody is told", func() bool {
		audit := c.call("GET", "/feature_flags/audit?flag=new_ui", "").body
		return strings.Contains(audit, "people rate the canary clearly worse") && strings.Contains(c.file("caddy.log"), "people rate the canary clearly worse")
	})
	c.api("POST", "flags/new_ui/reset", `{"reason": "redesigned"}`, 200)
	eventually(t, 5*time.Second, "what was said before the reset still counts", func() bool { return c.votes("new_ui").Total == 0 && !c.votes("new_ui").Worse })
}

// A flood of a hundred thousand keeps the file within its bound, loses nothing that is
// new, and stops no traffic.
func TestFeedbackFlood(t *testing.T) {
	c := feedback(t, "rate_limit off", `{"new_ui": {"active": true, "percentage_rollout": 50}}`)
	const posts, clients = 100_000, 32
	file := filepath.Join(c.dir, "state", "feedback.journal")
	most := int64(0)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for n := next.Add(1); n <= posts; n = next.Add(1) {
				body := fmt.Sprintf(`{"flag": "new_ui", "rating": %d, "comment": "number %d %s"}`, n%5+1, n, strings.Repeat("x", int(n%200)))
				req, _ := http.NewRequest(http.MethodPost, c.url(0)+"/feedback", strings.NewReader(body))
				req.Header.Set("X-User-ID", fmt.Sprint("u", n))
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					t.Errorf("number %d: %d", n, resp.StatusCode)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(50 * time.Millisecond):
		}
		if info, err := os.Stat(file); err == nil {
			most = max(most, info.Size())
		}
	}
	t.Logf("the file had %d bytes at most", most)
	if most == 0 || most > 8<<20 {
		t.Errorf("the file had %d bytes, want 8 MiB at most", most)
	}
	eventually(t, 5*time.Second, "the last words are not there", func() bool {
		v := c.votes("new_ui")
		return v.Total > 5000 && len(v.Feedback) > 0
	})
	if r := c.get("/", "X-User-ID", "alice"); r.status != 200 {
		t.Errorf("the site: %d", r.status)
	}
}

// Whoever can invent people has one voice, and none in the comparison where they choose
// what they were served.
func TestFeedbackOfInventedPeople(t *testing.T) {
	const features = `{"a": {"active": true, "percentage_rollout": 50}, "b": {"active": true, "percentage_rollout": 50}, "c": {"active": true, "percentage_rollout": 50}, "d": {"active": true, "percentage_rollout": 50}}`
	c := feedback(t, "rate_limit off\n		cors *", features)
	sticky := func(i int) string {
		return fmt.Sprintf("feature_flags_id=%s%02d", strings.Repeat("A", 24), []int{22, 23, 24, 25, 26}[i%5])
	}
	for i := range 20 {
		for _, flag := range []string{"a", "b", "c"} {
			var headers []string
			body := fmt.Sprintf(`{"flag": %q, "rating": 1.0}`, flag)
			switch flag {
			case "a": // an id that anybody can make up
				headers = []string{"Cookie", sticky(i)}
			case "b": // a word of one's own
				body = fmt.Sprintf(`{"flag": "b", "rating": 1, "context": {"targetingKey": "u%d"}}`, i)
			case "c": // a page of elsewhere, by somebody's browser
				headers = []string{"X-User-ID", fmt.Sprint("u", i), "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}
			}
			if r := c.post("/feedback", body, headers...); r.status != 202 {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
		c.post("/feedback", `{"flag": "d", "rating": 1}`, "X-User-ID", fmt.Sprint("u", i)) // people whom the site knows
	}
	for flag, want := range map[string]int{"a": 1, "b": 1, "c": 1, "d": 20} {
		eventually(t, 5*time.Second, "the summary is not there", func() bool { return c.votes(flag).Total == want })
		if v := c.votes(flag); v.Feedback[0].Rating != "1" {
			t.Errorf("%s: %+v", flag, v)
		}
	}
	compared := map[string]int{}
	for line := range strings.Lines(c.file("state/feedback.journal")) {
		for _, flag := range []string{"a", "b", "c", "d"} {
			if strings.Contains(line, fmt.Sprintf(`"flag":%q`, flag)) && strings.Contains(line, `"split":true`) {
				compared[flag]++
			}
		}
	}
	if compared["a"] == 0 || compared["b"] != 0 || compared["c"] != 0 || compared["d"] != 20 {
		t.Errorf("compared: %v", compared)
	}
}
