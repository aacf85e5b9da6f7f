package tests

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"
)

const testersKey = "a-key-for-links-of-testers"

const testersSite = `http://:0 {
	bind 127.0.0.1
	log site
	feature_flags {
		context {
			user_id header X-User-ID
		}
		override {
			key ` + testersKey + `
		}
	}
	feature_route new_ui {
		on {
			reverse_proxy NEW
		}
		off {
			reverse_proxy OLD
		}
		fallback
		pin 1m
	}
}
`

// browser keeps cookies and follows redirects, as people's do.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 20 * time.Second}
}

func visit(t *testing.T, b *http.Client, address string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest("GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return do(t, b, req)
}

// link asks the API for one.
func (c *instance) link(body string) (link, cookie, id string) {
	c.t.Helper()
	made := c.api("POST", "override_link", body, 200)
	return made["link"].(string), made["cookie"].(string), made["id"].(string)
}

// A link puts one browser on a variant; that is marked in the log, and is evidence
// of nothing.
func TestOverrideLink(t *testing.T) {
	features := `{"new_ui": {"active": true, "percentage_rollout": 0, "error_threshold": 0}, "later": {"active": false}, "colour": {"active": true, "variants": {"red": {"weight": 0}, "blue": {"weight": 100}}}}`
	up := echo(t, "new")
	c := serve(t, testersSite, features, map[string]string{"NEW": host(up), "OLD": host(echo(t, "old"))})
	link, cookie, id := c.link(`{"url": "` + c.url(0) + `/page?q=1", "flags": {"new_ui": "on", "later": "on", "colour": "red"}, "for": "1h", "by": "ann"}`)
	tester, other := browser(t), browser(t)
	r := visit(t, tester, link)
	got := r.echoed(t)
	if got.Name != "new" || got.URI != "/page?q=1" {
		t.Errorf("the tester got %s of %s", got.URI, got.Name)
	}
	for name, want := range map[string]string{"X-Feature-New-Ui": "on", "X-Feature-Later": "on", "X-Feature-Colour": "red"} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if visit(t, tester, c.url(0)+"/again").echoed(t).Name != "new" || visit(t, other, c.url(0)+"/page").echoed(t).Name != "old" {
		t.Error("want the tester on new, and nobody else")
	}
	name, value, _ := strings.Cut(cookie, "=")
	if visit(t, browser(t), c.url(0)+"/", "Cookie", name+"="+value).echoed(t).Name != "new" {
		t.Error("the cookie alone does nothing")
	}
	if vary := varies(r.header); len(vary) != 2 || vary[0] != "cookie" {
		t.Errorf("Vary %q", vary)
	}
	// The redirect keeps the token out of the address, and what follows out of caches.
	plain := visit(t, &http.Client{CheckRedirect: client.CheckRedirect}, link)
	if plain.status != 302 || plain.header.Get("Location") != "/page?q=1" || plain.header.Get("Cache-Control") != "no-store" || plain.header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%d %v", plain.status, plain.header)
	}
	// The canary breaks: the tester sees it, and it counts for nothing.
	up.Close()
	for range 5 {
		if r := visit(t, tester, c.url(0)+"/broken"); r.status != 502 {
			t.Fatalf("the tester gets %d, want to see the failure", r.status)
		}
	}
	g := c.settled("new_ui", 8)
	if g.State.Tripped || g.Guard.Canary.Errors != 0 {
		t.Errorf("%+v, want no evidence", g)
	}
	told := c.entries(11)
	marked := 0
	for _, e := range told {
		if f := e.Flags["new_ui"]; f.Detail == "tester" && f.Link == id && f.Reason == "TARGETING_MATCH" {
			marked++
		}
	}
	if marked != 8 {
		t.Errorf("%d lines of the log are marked, want 8", marked)
	}
	if visit(t, tester, c.url(0)+"/?feature_flags_override=end").echoed(t).Name != "old" {
		t.Error("the link does not end")
	}
	audit := c.call("GET", "/feature_flags/audit?flag=new_ui", "").body
	if !strings.Contains(audit, "override_link") || !strings.Contains(audit, `"ann"`) || !strings.Contains(audit, id) {
		t.Errorf("audit %s", audit)
	}
	_, _, id = c.link(`{"url": "` + c.url(0) + `/", "flags": {"new_ui": "on"}}`)
	entry := c.api("GET", "audit?flag=new_ui&limit=1", "", 200)["entries"].([]any)[0].(map[string]any)
	if entry["by"] != "api" || !strings.Contains(entry["reason"].(string), id) {
		t.Errorf("of a link that nobody says to have asked for: %v", entry)
	}
}

// Links that are not what they seem, and flags that are off for good reason.
func TestOverrideLinkIsNotFooled(t *testing.T) {
	c := serve(t, testersSite, `{"new_ui": {"active": true, "percentage_rollout": 0}}`, map[string]string{"NEW": host(echo(t, "new")), "OLD": host(echo(t, "old"))})
	address := c.url(0) + "/"
	_, cookie, _ := c.link(`{"url": "` + address + `", "flags": {"new_ui": "on"}, "for": "2s"}`)
	_, foreign, _ := c.link(`{"url": "http://other.example/", "flags": {"new_ui": "on"}}`)
	_, forced, _ := c.link(`{"url": "` + address + `", "flags": {"new_ui": "on"}, "force": true}`)
	way := func(cookie string) string { return fetch(t, address, "Cookie", cookie).echoed(t).Name }
	if way(cookie) != "new" {
		t.Fatal("the cookie does nothing")
	}
	for name, bad := range map[string]string{
		"forged": cookie[:len(cookie)-1] + "_", "truncated": cookie[:len(cookie)-9], "of another site": foreign,
		"unsigned": "feature_flags_override=new_ui", "empty": "feature_flags_override=", "twice as long": cookie + cookie,
	} {
		if way(bad) != "old" {
			t.Errorf("%s: is believed", name)
		}
		_, token, _ := strings.Cut(bad, "=")
		r := visit(t, browser(t), address+"?feature_flags_override="+url.QueryEscape(token))
		if got := r.echoed(t); got.Name != "old" || got.URI != "/" {
			t.Errorf("a link that is %s leads to %s of %s", name, got.URI, got.Name)
		}
	}
	// Nobody is sent to another host by it.
	for _, path := range []string{"//evil.example/x", "///evil.example"} {
		req, _ := http.NewRequest("GET", c.url(0), nil)
		req.URL.Opaque = path
		req.URL.RawQuery = "feature_flags_override=x"
		if r := do(t, client, req); strings.HasPrefix(r.header.Get("Location"), "//") {
			t.Errorf("%s is sent to %s", path, r.header.Get("Location"))
		}
	}
	c.api("POST", "flags/new_ui/disable", "", 200)
	if way(cookie) != "old" || way(forced) != "new" {
		t.Error("want a disabled flag off, unless the link says otherwise")
	}
	c.api("POST", "flags/new_ui/reset", "", 200)
	if way(cookie) != "new" {
		t.Error("the cookie does nothing any more")
	}
	time.Sleep(2100 * time.Millisecond)
	if way(cookie) != "old" {
		t.Error("an expired link is believed")
	}
	for body, want := range map[string]int{
		`{}`: 400, `{"url": "x", "flags": {"new_ui": "on"}}`: 400, `{"url": "` + address + `", "flags": {"none": "on"}}`: 404,
		`{"url": "` + address + `", "flags": {"new_ui": "red"}}`: 400, `{"url": "` + address + `", "flags": {"new_ui": "on"}, "for": "1y"}`: 400,
	} {
		if r := c.call("POST", "/feature_flags/override_link", body); r.status != want || !strings.Contains(r.body, `"error"`) {
			t.Errorf("%s: %d %s, want %d", body, r.status, r.body, want)
		}
	}
}

// The command, with a running Caddy and with the key at hand.
func TestOverrideLinkCommand(t *testing.T) {
	p := newProcess(t, strings.Replace(processCaddyfile, "feature_flags {\n\t\tcontext", "feature_flags {\n\t\toverride {\n\t\t\tkey "+testersKey+"\n\t\t}\n\t\tcontext", 1),
		`{"new_ui": {"active": true, "percentage_rollout": 0}}`, map[string]string{"NEW": host(upstream(t, "new", nil)), "OLD": host(upstream(t, "old", nil))})
	p.run()
	t.Setenv("LINK_KEY", testersKey)
	t.Setenv("SHORT_KEY", "short")
	for _, args := range [][]string{{"--address", p.admin}, {"--key-env", "LINK_KEY"}} {
		out, errs, status := p.command("", append([]string{"override-link", p.site + "/", "new_ui=on", "--for", "1h"}, args...)...)
		if status != 0 || !strings.Contains(errs, "holds until") {
			t.Fatalf("%v: %d %s%s", args, status, out, errs)
		}
		if r := visit(t, browser(t), strings.TrimSpace(out)); !strings.HasPrefix(r.body, "new") {
			t.Errorf("%v: the link leads to %q", args, r.body)
		}
		out, _, _ = p.command("", append([]string{"override-link", p.site + "/", "new_ui=on", "--cookie"}, args...)...)
		if r := fetch(t, p.site+"/", "Cookie", strings.TrimSpace(out)); !strings.HasPrefix(r.body, "new") {
			t.Errorf("%v: the cookie leads to %q", args, r.body)
		}
		out, _, _ = p.command("", append([]string{"override-link", p.site + "/", "new_ui=on", "--json"}, args...)...)
		if !json.Valid([]byte(out)) {
			t.Errorf("%v: %s", args, out)
		}
	}
	p.said(1, []string{"override-link", p.site + "/", "new_ui", "--address", p.admin}, "want a flag and a variant as new_ui=on")
	p.said(1, []string{"override-link", p.site + "/", "new_uo=on", "--address", p.admin}, `did you mean "new_ui"`)
	p.said(1, []string{"override-link", p.site + "/", "new_ui=on", "--key-env", "NOT_SET_AT_ALL"}, "--key-env NOT_SET_AT_ALL: key: number 1 has 0 bytes, want 16 or more")
	p.said(1, []string{"override-link", p.site + "/", "new_ui=on", "--key-env", "SHORT_KEY"}, "has 5 bytes")
	p.said(1, []string{"override-link", "shop", "new_ui=on", "--key-env", "LINK_KEY"}, "want the address of a page")
}
