package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

const consoleSite = `http://:0 {
	bind 127.0.0.1
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	feature_flags_console /ops/* {
		OPTION
	}
	reverse_proxy APP
}
`

const consoleFlags = `{"new_ui": {"active": true, "percentage_rollout": 50, "metadata": {"description": "<script>alert(1)</script>", "owner": "\"><b>x"}}}`

func consoleOf(t *testing.T, option string) *instance {
	t.Helper()
	return start(t, global+consoleSite, consoleFlags, map[string]string{"OPTION": option, "APP": host(echo(t, "app"))})
}

var formToken = regexp.MustCompile(`name="token" value="([^"]+)"`)

func TestConsolePages(t *testing.T) {
	c := consoleOf(t, "")
	for i := range 20 {
		c.get("/", "X-User-ID", "hidden-user-"+itoa(i))
	}
	c.api("POST", "flags/new_ui/disable", `{"reason": "<img src=x onerror=alert(1)>", "by": "<i>eve"}`, 200)
	for _, path := range []string{"", "flags/new_ui", "audit", "lint", "playground", "banners", "preview", "flags/%3Cscript%3E", "nothing"} {
		r := c.get("/ops/" + path)
		if want := map[bool]int{true: 404, false: 200}[path == "nothing" || strings.Contains(path, "flags/%3C")]; r.status != want {
			t.Errorf("%s: %d", path, r.status)
		}
		csp := r.header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") || r.header.Get("X-Frame-Options") != "DENY" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", path, r.header)
		}
		for _, bad := range []string{"<script>", "javascript:", " onclick=", " onload=", " style=", "<style", "<img", "<b>x", "<i>eve", "hidden-user"} {
			if strings.Contains(strings.ReplaceAll(r.body, "&lt;script&gt;", ""), bad) {
				t.Errorf("%s has %q in it", path, bad)
			}
		}
		for _, m := range regexp.MustCompile(`(?:src|href|action)="(https?:)?//`).FindAllString(r.body, -1) {
			t.Errorf("%s asks another host: %s", path, m)
		}
	}
	for file, kind := range map[string]string{"console.js": "text/javascript; charset=utf-8", "console.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"} {
		r := c.get("/ops/static/" + file)
		if r.status != 200 || r.header.Get("Content-Type") != kind || r.header.Get("ETag") == "" {
			t.Errorf("%s: %d %v", file, r.status, r.header)
		}
		if again := c.get("/ops/static/"+file, "If-None-Match", r.header.Get("ETag")); again.status != 304 {
			t.Errorf("%s again: %d", file, again.status)
		}
	}
	if r := c.get("/ops"); r.status != 302 || r.header.Get("Location") != "/ops/" {
		t.Errorf("without a slash: %d %v", r.status, r.header)
	}
	if r := c.get("/opsy"); r.echoed(t).Name != "app" {
		t.Errorf("the rest of the site: %s", r.body)
	}
	if r := c.get("/ops/static/../../../etc/passwd"); r.status == 200 && strings.Contains(r.body, "root:") {
		t.Error("a file of the machine")
	}
}

// forged is a token whose signature is another one.
func forged(token string) string {
	end, sum, _ := strings.Cut(token, ".")
	other := "A"
	if sum[0] == 'A' {
		other = "B"
	}
	return end + "." + other + sum[1:]
}

// Nobody changes anything but from the console's own pages.
func TestConsoleForms(t *testing.T) {
	c := consoleOf(t, "")
	token := formToken.FindStringSubmatch(c.get("/ops/flags/new_ui").body)[1]
	order := func(path, body string, headers ...string) reply {
		t.Helper()
		return c.post("/ops/"+path, body, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, headers...)...)
	}
	disabled := func() bool { return c.api("GET", "flags/new_ui", "", 200)["status"] == "disabled" }
	good := "token=" + token + "&reason=why"
	for name, r := range map[string]reply{
		"no token":              order("flags/new_ui/disable", "reason=x"),
		"a forged one":          order("flags/new_ui/disable", "token="+forged(token)),
		"one that has ended":    order("flags/new_ui/disable", "token=1"+token[strings.Index(token, "."):]),
		"another site":          order("flags/new_ui/disable", good, "Sec-Fetch-Site", "cross-site"),
		"another host's page":   order("flags/new_ui/disable", good, "Origin", "https://evil.example"),
		"a name of another one": order("flags/new_ui/disable", good, "Host", "evil.example"),
	} {
		if r.status != http.StatusForbidden || disabled() {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	if r := c.get("/ops/flags/new_ui/disable?" + good); r.status != 404 && r.status != 405 || disabled() {
		t.Errorf("GET: %d", r.status)
	}
	for name, f := range map[string]struct {
		path, body string
		status     int
	}{
		"unknown flag":  {"flags/nosuch/disable", good, 404},
		"unknown order": {"flags/new_ui/explode", good, 404},
		"a word":        {"flags/new_ui/percentage", good + "&percentage=half", 400},
		"too much":      {"flags/new_ui/percentage", good + "&percentage=101", 400},
		"no rollout":    {"flags/new_ui/promote", good, 409},
		"a long reason": {"flags/new_ui/disable", "token=" + token + "&reason=" + strings.Repeat("x", 5000), 400},
		"huge":          {"flags/new_ui/disable", good + "&x=" + strings.Repeat("x", 100_000), 400},
	} {
		if r := order(f.path, f.body); r.status != f.status || disabled() || !strings.Contains(r.body, "role=\"alert\"") {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	if r := c.do(http.MethodGet, "/ops/", "", "Host", "evil.example"); r.status != 403 || strings.Contains(r.body, "<") {
		t.Errorf("another name for this machine: %d %s", r.status, r.body)
	}
	for _, path := range []string{"/ops/flags//new_ui", "/ops/./audit", "/ops/x/../audit"} {
		if r := c.get(path); r.status != 404 {
			t.Errorf("%s: %d %v", path, r.status, r.header)
		}
	}
	for _, path := range []string{"/ops/events", "/ops/flags/new_ui/live"} {
		if r := c.do(http.MethodHead, path, ""); r.status != 200 {
			t.Errorf("HEAD %s: %d", path, r.status)
		}
	}
	if r := order("flags/new_ui/disable", good, "Sec-Fetch-Site", "same-origin"); r.status != 303 || r.header.Get("Location") != "/ops/flags/new_ui" || !disabled() {
		t.Errorf("%d %v", r.status, r.header)
	}
}

// Two people who order the same step of a rollout do not order two.
func TestConsoleOfTwo(t *testing.T) {
	c := start(t, global+consoleSite, `{"new_ui": {"active": true, "rollout": {"steps": [1, 5, 25], "bake": "1h"}}}`, map[string]string{"OPTION": "", "APP": host(echo(t, "app"))})
	var page reply
	eventually(t, 5*time.Second, "the rollout does not begin", func() bool {
		page = c.get("/ops/flags/new_ui")
		return strings.Contains(page.body, `name="step" value="1"`)
	})
	body := "step=1&token=" + formToken.FindStringSubmatch(page.body)[1]
	for i, want := range []int{303, 409} {
		if r := c.post("/ops/flags/new_ui/promote", body, "Content-Type", "application/x-www-form-urlencoded"); r.status != want {
			t.Errorf("promoted by person %d: %d", i+1, r.status)
		}
	}
	if got := c.api("GET", "flags/new_ui", "", 200)["percentage"]; got != 5.0 {
		t.Errorf("at %v %%", got)
	}
}

// What the list says of whom a flag is on for.
func TestConsoleReach(t *testing.T) {
	c := start(t, global+consoleSite, `{
		"all": {"active": true},
		"some": {"active": true, "percentage_rollout": 12.5},
		"gone": {"active": false},
		"none": {"active": true, "percentage_rollout": 0},
		"on_gone": {"active": true, "depends_on": ["gone"]},
		"on_on_gone": {"active": true, "percentage_rollout": 10, "depends_on": ["on_gone"]},
		"places": {"active": true, "regions": ["RO"]},
		"some_places": {"active": true, "regions": ["RO"], "percentage_rollout": 20},
		"friends": {"active": true, "users": ["ann"]},
		"ruled": {"active": true, "percentage_rollout": 0, "rules": [{"when": "region == 'RO'"}]},
		"all_but": {"active": true, "rules": [{"when": "region == 'RO'", "serve": "off"}]},
		"ruled_off": {"active": true, "rules": [{"when": "region == 'RO'"}, {"when": "true", "serve": "off"}]},
		"elsewhere": {"active": true, "environments": ["moon"]}
	}`, map[string]string{"OPTION": "", "APP": host(echo(t, "app"))})
	page := regexp.MustCompile(`\s+`).ReplaceAllString(c.get("/ops/").body, " ")
	for name, want := range map[string][2]string{
		"all":         {"on", "everyone"},
		"some":        {"split", "12.5 %"},
		"gone":        {"inactive", `0 %<span class="about">its definition is not active</span>`},
		"none":        {"off", `0 %<span class="about">its percentage is 0</span>`},
		"on_gone":     {"off", `0 %<span class="about">it depends on gone, which is off: its definition is not active</span>`},
		"on_on_gone":  {"off", `0 %<span class="about">it depends on on_gone, which is off: that depends on gone, which is off: its definition is not active</span>`},
		"places":      {"targeted", "100 % of those targeted"},
		"some_places": {"split", "20 % of those targeted"},
		"friends":     {"targeted", "only those listed"},
		"ruled":       {"targeted", "only those its rules name"},
		"all_but":     {"targeted", "100 % of those targeted"},
		"ruled_off":   {"targeted", "only those its rules name"},
		"elsewhere":   {"off", `0 %<span class="about">it is not for the environment production</span>`},
	} {
		_, row, _ := strings.Cut(page, `<a href="/ops/flags/`+name+`">`)
		row, _, _ = strings.Cut(row, "</tr>")
		if !strings.Contains(row, `<span class="status `+want[0]+`">`) || !strings.Contains(row, `<td class="reach">`+want[1]+`</td>`) {
			t.Errorf("%s: want %v in %s", name, want, row)
		}
	}
	if got := c.api("GET", "flags/on_gone", "", 200); got["status"] != "on" || got["percentage"] != 100.0 {
		t.Errorf("the API looks at the flag alone: %v, %v", got["status"], got["percentage"])
	}
	if page := c.get("/ops/?status=targeted").body; strings.Count(page, `<tr> <th`)+strings.Count(page, "<th scope=\"row\">") != 5 {
		t.Errorf("targeted ones: %s", page)
	}
}

var orderButton = regexp.MustCompile(`formaction="[^"]*/([a-z]+)"[^>]*>([^<]+)<`)

// Only orders that apply can be given, and the audit log says what came of them.
func TestConsoleOrders(t *testing.T) {
	c := start(t, global+consoleSite, `{"climbs": {"active": true, "rollout": {"steps": [1, 5, 25], "bake": "1h"}}, "plain": {"active": true, "percentage_rollout": 10}, "asleep": {"active": false}}`,
		map[string]string{"OPTION": "", "APP": host(echo(t, "app"))})
	eventually(t, 5*time.Second, "the rollout does not begin", func() bool { return strings.Contains(c.get("/ops/flags/climbs").body, `name="step" value="1"`) })
	type entry struct{ action, reason string }
	for _, o := range []struct {
		flag, order, form string
		audited           entry
		orders            string // afterwards
	}{
		{flag: "asleep", orders: "percentage enable reset disable"},
		{"asleep", "enable", "", entry{"enabled", ""}, "percentage reset disable"},
		{"asleep", "disable", "", entry{"disabled", ""}, "percentage enable reset"},
		{flag: "plain", orders: "percentage reset disable"},
		{"plain", "percentage", "percentage=40&reason=lunch", entry{"rollout_set", "from 10 % to 40 %: lunch"}, "percentage resume reset disable"},
		{"plain", "percentage", "percentage=12.5", entry{"rollout_set", "from 40 % to 12.5 %"}, "percentage resume reset disable"},
		{"plain", "resume", "", entry{"rollout_resume", "from 12.5 % to 10 %"}, "percentage reset disable"},
		{"climbs", "promote", "reason=fine", entry{"rollout_promote", "from 1 % to 5 %, step 2 of 3: fine"}, "percentage promote pause reset abort disable"},
		{"climbs", "pause", "", entry{"rollout_pause", "at 5 %, step 2 of 3"}, "percentage promote resume reset abort disable"},
		{"climbs", "percentage", "percentage=7", entry{"rollout_set", "from 5 % to 7 %, step 2 of 3"}, "percentage promote resume reset abort disable"},
		{"climbs", "abort", "", entry{"rollout_abort", "from 7 % to 0 %, before step 1 of 3"}, "percentage resume reset disable"},
		{"climbs", "resume", "", entry{"rollout_resume", "from 0 % to 1 %, step 1 of 3"}, "percentage promote pause reset abort disable"},
	} {
		if o.order != "" {
			token := formToken.FindStringSubmatch(c.get("/ops/flags/" + o.flag).body)[1]
			if r := c.post("/ops/flags/"+o.flag+"/"+o.order, "token="+token+"&"+o.form, "Content-Type", "application/x-www-form-urlencoded"); r.status != 303 {
				t.Fatalf("%s %s: %d %s", o.flag, o.order, r.status, r.body)
			}
			e := c.api("GET", "audit?limit=1&flag="+o.flag, "", 200)["entries"].([]any)[0].(map[string]any)
			reason, _ := e["reason"].(string)
			if got := (entry{e["action"].(string), reason}); got != o.audited {
				t.Errorf("%s %s is audited as %q, want %q", o.flag, o.order, got, o.audited)
			}
		}
		there := map[string]bool{}
		page := c.get("/ops/flags/" + o.flag).body
		if o.order == "abort" && !strings.Contains(page, "<strong>Off for everyone</strong>: its percentage is 0, aborted by <bdi>console</bdi>.") {
			t.Errorf("aborted: %s", page)
		}
		for _, m := range orderButton.FindAllStringSubmatch(page, -1) {
			there[m[1]] = true
			if o.flag == "plain" && m[1] == "resume" && m[2] != "Back to the definition&#39;s percentage" {
				t.Errorf("resume is called %q", m[2])
			}
		}
		for _, want := range strings.Fields(o.orders) {
			if !there[want] {
				t.Errorf("%s after %q: no order %s", o.flag, o.order, want)
			}
			delete(there, want)
		}
		if len(there) > 0 {
			t.Errorf("%s after %q: orders %v, too", o.flag, o.order, there)
		}
	}
}

// A reset is of what its page showed.
func TestConsoleResetIsOfWhatWasSeen(t *testing.T) {
	c := consoleOf(t, "")
	c.api("POST", "flags/new_ui/disable", `{"by": "ann"}`, 200)
	page := c.get("/ops/flags/new_ui").body
	seen := regexp.MustCompile(`name="seen" value="([^"]+)"`).FindStringSubmatch(page)[1]
	form := "token=" + formToken.FindStringSubmatch(page)[1] + "&seen=" + seen
	if !strings.Contains(page, "disabled by <bdi>ann</bdi>") {
		t.Error("the page does not say who has disabled it")
	}
	c.api("POST", "flags/new_ui/enable", "", 200)
	c.api("POST", "flags/new_ui/disable", `{"by": "bob"}`, 200)
	r := c.post("/ops/flags/new_ui/reset", form, "Content-Type", "application/x-www-form-urlencoded")
	if r.status != 409 || !strings.Contains(r.body, "disabled by bob since this page was made") || !strings.Contains(r.body, `href="/ops/flags/new_ui"`) || c.api("GET", "flags/new_ui", "", 200)["status"] != "disabled" {
		t.Errorf("%d %s", r.status, r.body)
	}
	form = strings.Replace(form, seen, regexp.MustCompile(`name="seen" value="([^"]+)"`).FindStringSubmatch(c.get("/ops/flags/new_ui").body)[1], 1)
	if r := c.post("/ops/flags/new_ui/reset", form, "Content-Type", "application/x-www-form-urlencoded"); r.status != 303 || c.api("GET", "flags/new_ui", "", 200)["status"] != "split" {
		t.Errorf("of what was seen: %d %s", r.status, r.body)
	}
}

// A flag that has tripped says what re-arms it, on its own page alone.
func TestConsoleTripped(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	t.Cleanup(app.Close)
	c := start(t, global+consoleSite, `{"sick": {"active": true, "error_threshold": 2}, "well": {"active": true}}`, map[string]string{"OPTION": "", "APP": host(app)})
	for range 6 {
		c.get("/")
	}
	eventually(t, 5*time.Second, "it does not trip", func() bool { return c.api("GET", "flags/sick", "", 200)["status"] == "tripped" })
	const banner = `<a href="/ops/flags/sick">sick</a>`
	own, others := c.get("/ops/flags/sick").body, c.get("/ops/flags/well").body
	if strings.Contains(own, banner) || !strings.Contains(others, banner) || strings.Contains(c.get("/ops/banners?flag=sick").body, banner) || !strings.Contains(c.get("/ops/banners?flag=well").body, banner) {
		t.Error("the banners are not of the other flags")
	}
	for name, change := range map[string][2]string{"Enable": {"enable", ""}, "Set": {"rollout", `{"percentage": 5}`}} {
		c.api("POST", "flags/sick/"+change[0], change[1], 200)
		if page := c.get("/ops/flags/sick").body; !strings.Contains(page, "still off: only Reset re-arms it") || !strings.Contains(page, "Off for everyone since") {
			t.Errorf("%s on what has tripped: %s", name, page)
		}
	}
	if marks := c.get("/ops/flags/sick/series?last=live").body; !strings.Contains(marks, `"what":"tripped"`) {
		t.Errorf("the charts have %s", marks)
	}
}

// What is typed into the playground is in no address.
func TestConsolePlayground(t *testing.T) {
	c := consoleOf(t, "")
	if page := c.get("/ops/playground?flag=new_ui&context=%7B%22user_id%22%3A%22ann%22%7D").body; strings.Contains(page, "&#34;ann") || strings.Contains(page, "<details") || !strings.Contains(page, "<option selected>new_ui") || !strings.Contains(page, `method="post"`) {
		t.Errorf("%s", page)
	}
	form := url.Values{"token": {formToken.FindStringSubmatch(c.get("/ops/playground").body)[1]}, "context": {`{"user_id": "<script>"}`}, "flag": {"new_ui"}, "environment": {"production"}, "at": {"2026-01-31 12:00:00 UTC"}}
	r := c.post("/ops/playground", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if r.status != 200 || !strings.Contains(r.body, "<details") || strings.Contains(r.body, "<script>\"") {
		t.Errorf("%d %s", r.status, r.body)
	}
	form.Set("token", "x")
	if r := c.post("/ops/playground", form.Encode(), "Content-Type", "application/x-www-form-urlencoded"); r.status != 403 {
		t.Errorf("without a token: %d", r.status)
	}
}

// What a page shows already is not sent again.
func TestConsoleUnchanged(t *testing.T) {
	c := consoleOf(t, "")
	eventually(t, 5*time.Second, "the flag has no age", func() bool { return c.api("GET", "flags/new_ui", "", 200)["first_seen"] != nil })
	for _, path := range []string{"", "flags/new_ui", "banners", "lint"} {
		first := c.get("/ops/" + path)
		if again := c.get("/ops/"+path, "If-None-Match", first.header.Get("ETag")); again.status != 304 || again.body != "" {
			t.Errorf("%q again: %d", path, again.status)
		}
	}
	tag := c.get("/ops/").header.Get("ETag")
	c.api("POST", "flags/new_ui/disable", "", 200)
	if r := c.get("/ops/", "If-None-Match", tag); r.status != 200 || !strings.Contains(r.body, "disabled") {
		t.Errorf("changed: %d", r.status)
	}
}

// A preview has an end.
func TestConsolePreviewIsBounded(t *testing.T) {
	c := consoleOf(t, "")
	for i := range 60 {
		c.get("/", "X-User-ID", "u"+itoa(i))
		time.Sleep(25 * time.Millisecond) // so that many are remembered
	}
	token := formToken.FindStringSubmatch(c.get("/ops/preview").body)[1]
	var flags strings.Builder
	flags.WriteString("{")
	const list = "[0,1,2,3,4,5,6,7,8,9]"
	for i := range 300 {
		if i > 0 {
			flags.WriteString(",")
		}
		fmt.Fprintf(&flags, `"f%d":{"active":true,"rules":[{"when":"%s.all(a,%s.all(b,%s.all(c,%s.all(d,a+b+c+d>=0))))","serve":"off"}]}`, i, list, list, list, list)
	}
	flags.WriteString("}")
	begun := time.Now()
	r := c.post("/ops/preview", "token="+token+"&text="+url.QueryEscape(flags.String()), "Content-Type", "application/x-www-form-urlencoded")
	if took := time.Since(begun); r.status != 200 || took > 12*time.Second || !strings.Contains(r.body, "takes too long") {
		t.Errorf("after %v: %d", took, r.status)
	}
}

// A console that others than this machine could reach does not start by itself.
func TestConsoleNeedsAuthentication(t *testing.T) {
	c := consoleOf(t, "")
	open := strings.ReplaceAll(c.text, "bind 127.0.0.1", "bind 0.0.0.0")
	closed := c.text
	c.text = open
	if err := c.load(); err == nil || !strings.Contains(err.Error(), "authenticated") || !strings.Contains(err.Error(), "0.0.0.0") {
		t.Errorf("an open listener: %v", err)
	}
	c.text = strings.Replace(open, "feature_flags_console /ops/* {", "handle_path /ops/* {\n		route {\n			feature_flags_console {\n", 1)
	c.text = strings.Replace(c.text, "	}\n	reverse_proxy", "	}\n}\n}\n	reverse_proxy", 1)
	if err := c.load(); err == nil || !strings.Contains(err.Error(), "authenticated") {
		t.Errorf("an open listener, in routes of routes: %v", err)
	}
	c.text = closed
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	c.words["OPTION"] = "authenticated"
	c.text = strings.Replace(open, "	bind 0.0.0.0\n	feature_flags {", "	bind 0.0.0.0\n	basic_auth {\n		ann $2a$04$Wss9ouHTCspqZbV0DaEvGOPViYkMJqgXCWqQHI3ZttE01yDLCTScC\n	}\n	feature_flags {", 1)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	address := strings.Replace(strings.Replace(c.url(0), "[::]", "127.0.0.1", 1), "0.0.0.0", "127.0.0.1", 1)
	if r := fetch(t, address+"/ops/"); r.status != 401 {
		t.Errorf("without a password: %d", r.status)
	}
	page := fetch(t, address+"/ops/flags/new_ui", "Authorization", "Basic YW5uOmFubg==", "Host", "ops.example")
	if page.status != 200 {
		t.Fatalf("with the password: %d %s", page.status, page.body)
	}
	req, err := http.NewRequest(http.MethodPost, address+"/ops/flags/new_ui/disable", strings.NewReader("token="+formToken.FindStringSubmatch(page.body)[1]))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("ann", "ann")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	entry := c.api("GET", "audit?limit=1", "", 200)["entries"].([]any)[0].(map[string]any)
	if resp.StatusCode != 303 || entry["by"] != "ann" {
		t.Errorf("%d, by %v", resp.StatusCode, entry["by"])
	}
}
