package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A tester speaks for no flag: not for the one of the link, nor for others that the
// same requests are exposures of, however they are told.
func TestOverrideSpeaksForNoFlag(t *testing.T) {
	for _, told := range []string{"flags new_ui other split", "headers list X-Features"} {
		c := serve(t, site+`
	feature_flags {
		context {
			user_id header X-User-ID
		}
		override {
			key `+testersKey+`
		}
		TOLD
	}
	feature_route new_ui {
		on {
			respond 500
		}
		off {
			respond "old"
		}
	}
}`, `{
			"new_ui": {"active": true, "percentage_rollout": 0}, "other": {"active": true, "error_threshold": 0},
			"split": {"active": true, "percentage_rollout": 50}, "more": {"active": true, "percentage_rollout": 50}, "a": {"active": true}, "b": {"active": true}
		}`, map[string]string{"TOLD": told})
		_, cookie, _ := c.link(`{"url": "` + c.url(0) + `/", "flags": {"new_ui": "on"}}`)
		for i := range 40 {
			if r := c.get("/", "X-User-ID", fmt.Sprintf("u%d", i), "Cookie", cookie); r.status != 500 {
				t.Fatalf("%d", r.status)
			}
		}
		c.entries(40)
		if c.guard("other").State.Tripped {
			t.Errorf("%s: a tester has tripped another flag", told)
		}
		for _, flag := range []string{"split", "more"} {
			if text := c.call("GET", "/feature_flags/flags/"+flag, "").body; strings.Contains(text, `"test":{`) {
				t.Errorf("%s: the guard of %s was made for testers: %s", told, flag, text)
			}
		}
	}
}

// Three hops, the middle one of which knows nobody: the last one agrees with the first.
func TestChainOfThreeHops(t *testing.T) {
	var sites []string
	for range 3 {
		sites = append(sites, freeAddress(t))
	}
	first := "context {\nuser_id header X-User-ID\n}\npropagate {\nkey KEY\n}"
	middle := "trust {\nkey KEY\n}\npropagate {\nkey KEY\n}"
	last := "context {\nuser_id header X-User-ID\n}\ntrust {\nkey KEY\n}"
	text := global
	for i, block := range []string{first, middle, last} {
		next := "reverse_proxy APP"
		if i < 2 {
			next = "reverse_proxy " + sites[i+1]
		}
		text += "http://" + sites[i] + " {\nfeature_flags {\n" + block + "\n}\n" + next + "\n}\n"
	}
	c := start(t, text, `{"new_ui": {"active": true, "percentage_rollout": 50, "guard": false}, "colour": {"active": true, "hash_by": "user_id", "percentage_rollout": 50, "guard": false}}`,
		map[string]string{"KEY": chainKey, "APP": host(echo(t, "app"))})
	before, _ := scrape(t, c.admin+"/metrics")
	for i := range 30 {
		user := fmt.Sprintf("u%d", i)
		got := fetch(t, "http://"+sites[0]+"/", "X-User-ID", user).echoed(t).Header
		want := c.api("POST", "evaluate", `{"context": {"user_id": "`+user+`"}}`, 200)["decisions"].(map[string]any)["new_ui"].(map[string]any)["variant"]
		if got.Get("X-Feature-New-Ui") != want {
			t.Errorf("%s: %q, want %q", user, got.Get("X-Feature-New-Ui"), want)
		}
		if !strings.HasPrefix(got.Get("Feature-Decisions"), "v1.") {
			t.Errorf("%s: %q", user, got.Get("Feature-Decisions"))
		}
	}
	after, _ := scrape(t, c.admin+"/metrics")
	for series, n := range after {
		if strings.HasPrefix(series, "caddy_feature_flags_decisions_refused_total") && n != before[series] {
			t.Errorf("%s %g, was %g", series, n, before[series])
		}
	}
}

// Where a hop that only trusts does something else than was signed, it does not pass
// that on.
func TestChainPassesNothingOnThatItContradicts(t *testing.T) {
	sites := []string{freeAddress(t), freeAddress(t)}
	c := start(t, global+"http://"+sites[0]+" {\nfeature_flags {\npropagate {\nkey KEY\n}\n}\nreverse_proxy "+sites[1]+"\n}\nhttp://"+sites[1]+` {
	feature_flags {
		trust {
			key KEY
		}
	}
	feature_route new_ui {
		on {
			error 502
		}
		off {
			reverse_proxy APP
		}
		fallback
	}
}
`, `{"new_ui": {"active": true, "guard": false}}`, map[string]string{"KEY": chainKey, "APP": host(echo(t, "app"))})
	_ = c
	got := fetch(t, "http://"+sites[0]+"/").echoed(t).Header
	if got.Get("X-Feature-New-Ui") != "off" || got["Feature-Decisions"] != nil {
		t.Errorf("%q and %q", got.Get("X-Feature-New-Ui"), got["Feature-Decisions"])
	}
}

// Clients have no say in our baggage, and keep theirs.
func TestChainBaggageOfClients(t *testing.T) {
	for _, block := range []string{"propagate {\nkey KEY\n}", "propagate {\nkey KEY\nbaggage\n}", "trust {\nkey KEY\n}"} {
		c := serve(t, site+"feature_flags {\n"+block+"\n}\nreverse_proxy APP\n}", `{"new_ui": {"active": false}}`, map[string]string{"KEY": chainKey, "APP": host(echo(t, "app"))})
		got := c.get("/", "Baggage", "theirs=1, Feature_Flag.new_ui=x, feature_flag.new_ui=on", "Connection", "Baggage").echoed(t).Header
		want := "theirs=1"
		if strings.Contains(block, "baggage") {
			want += ",feature_flag.new_ui=off"
		}
		if v := got["Baggage"]; len(v) != 1 || v[0] != want {
			t.Errorf("%s: Baggage %q, want %q", block, v, want)
		}
	}
}

// What a matcher was told before the handler had read who asks stays so.
func TestMatcherBeforeALink(t *testing.T) {
	c := serve(t, site+`
	@n feature new_ui
	header @n X-N 1
	feature_flags {
		override {
			key `+testersKey+`
		}
	}
	feature_route new_ui {
		on {
			respond "new"
		}
		off {
			respond "old"
		}
	}
}`, `{"new_ui": {"active": true, "percentage_rollout": 0}}`, nil)
	_, cookie, _ := c.link(`{"url": "` + c.url(0) + `/", "flags": {"new_ui": "on"}}`)
	r := c.get("/", "Cookie", cookie)
	told := c.entries(1)[0].Flags["new_ui"]
	if (r.body == "new") != (told.Variant == "on") || (r.body == "new") != (r.header.Get("X-N") == "1") {
		t.Errorf("%q, X-N %q, access log %+v: want one answer", r.body, r.header.Get("X-N"), told)
	}
}

// A tester's variant does not put two flags of an exclusive group on for one person.
func TestOverrideInAnExclusiveGroup(t *testing.T) {
	c := serve(t, site+`
	feature_flags {
		context {
			user_id header X-User-ID
		}
		override {
			key `+testersKey+`
		}
	}
	reverse_proxy APP
}`, `{"a": {"active": true, "exclusive": "banner", "percentage_rollout": 50}, "b": {"active": true, "exclusive": "banner", "percentage_rollout": 50}}`, map[string]string{"APP": host(echo(t, "app"))})
	_, cookie, _ := c.link(`{"url": "` + c.url(0) + `/", "flags": {"a": "on"}}`)
	for i := range 50 {
		got := c.get("/", "X-User-ID", fmt.Sprintf("u%d", i), "Cookie", cookie).echoed(t).Header
		if got.Get("X-Feature-A") != "on" || got.Get("X-Feature-B") != "off" {
			t.Fatalf("a %s, b %s", got.Get("X-Feature-A"), got.Get("X-Feature-B"))
		}
	}
}

// Testers see that the canary is not there.
func TestOverrideWithPolicy(t *testing.T) {
	c := serve(t, site+`
	feature_flags {
		override {
			key `+testersKey+`
		}
	}
	reverse_proxy OLD DEAD {
		fail_duration 1m
		lb_policy feature new_ui {
			on  DEAD
			off OLD
		}
	}
}`, `{"new_ui": {"active": true, "percentage_rollout": 0}}`, map[string]string{"OLD": host(upstream(t, "old", nil)), "DEAD": freeAddress(t)})
	_, cookie, _ := c.link(`{"url": "` + c.url(0) + `/", "flags": {"new_ui": "on"}}`)
	for range 4 {
		if r := c.get("/", "Cookie", cookie); r.status < 500 {
			t.Errorf("%d %q, want the canary's failure", r.status, r.body)
		}
	}
	if r := c.get("/"); r.status != http.StatusOK {
		t.Errorf("others get %d", r.status)
	}
}

// A link leads to the address as it was written.
func TestOverrideLinkKeepsTheAddress(t *testing.T) {
	c := serve(t, testersSite, `{"new_ui": {"active": true, "percentage_rollout": 0}}`, map[string]string{"NEW": host(echo(t, "new")), "OLD": host(echo(t, "old"))})
	for _, query := range []string{"?b=2&a=1&flag&x=%20+", "?z=%zz", "?a=b;c=d", ""} {
		link, _, _ := c.link(`{"url": "` + c.url(0) + `/p` + query + `", "flags": {"new_ui": "on"}}`)
		if got := visit(t, browser(t), link).echoed(t); got.URI != "/p"+query || got.Name != "new" {
			t.Errorf("%s of %s, want /p%s", got.URI, got.Name, query)
		}
	}
}

// Flags that depend on a pinned one follow it, each time, and say so to caches.
func TestPinOfFlagsThatDepend(t *testing.T) {
	c := serve(t, site+`
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	feature_route b {
		on {
			header X-B on
		}
		pin 1m
	}
	feature_route a {
		on {
			respond "a-on"
		}
		off {
			respond "a-off"
		}
		pin 1m
	}
}`, `{"a": {"active": true, "depends_on": ["b"]}, "b": {"active": true, "percentage_rollout": 100}, "unpinned": {"active": true, "depends_on": ["b"]}}`, nil)
	b := browser(t)
	if r := visit(t, b, c.url(0)+"/"); r.body != "a-on" || !strings.Contains(strings.Join(r.header["Vary"], ","), "Cookie") {
		t.Fatalf("%q %v", r.body, r.header)
	}
	c.api("POST", "flags/b/rollout", `{"percentage": 0}`, 200)
	for range 50 {
		if r := visit(t, b, c.url(0)+"/style.css", "Sec-Fetch-Dest", "style"); r.body != "a-on" || r.header.Get("X-B") != "on" {
			t.Fatalf("%q, b %q", r.body, r.header.Get("X-B"))
		}
	}
	if r := c.get("/"); r.body != "a-off" {
		t.Errorf("without a pin: %q", r.body)
	}
}
