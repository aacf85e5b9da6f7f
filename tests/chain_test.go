package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const chainKey = "a-key-that-both-hops-share"

// edge is a site that signs its decisions and passes requests on to NEXT.
const edge = `http://:0 {
	bind 127.0.0.1
	feature_flags {
		context {
			user_id header X-User-ID
			user_id sticky
		}
		propagate {
			key ` + chainKey + `
			OPTIONS
		}
	}
	feature_route new_ui {
		on {
			ON
		}
		off {
			reverse_proxy NEXT
		}
		fallback
	}
}
`

// chained starts the edge here and a second hop in a process of its own, which has
// other definitions. Behind it is an application that shows what it was sent.
func chained(t *testing.T, options, second, features, secondFeatures string) (c *instance, p *process) {
	t.Helper()
	p = newProcess(t, `{
	admin ADMIN
	auto_https off
	persist_config off
	feature_flags {
		source file FEATURES {
			poll 100ms
		}
		state local STATE
	}
}
SITE {
	feature_flags {
		SECOND
	}
	feature_route new_ui {
		on {
			reverse_proxy APP {
				header_up X-Way new
			}
		}
		off {
			reverse_proxy APP {
				header_up X-Way old
			}
		}
	}
}
`, secondFeatures, map[string]string{"SECOND": second, "APP": host(echo(t, "app"))})
	p.run()
	next := strings.TrimPrefix(p.site, "http://")
	text := strings.NewReplacer("OPTIONS", options, "ON\n", "reverse_proxy "+next+"\n").Replace(edge)
	return start(t, global+text, features, map[string]string{"NEXT": next}), p
}

const trusting = "trust {\nkey " + chainKey + "\n}\n"

// Two hops whose definitions differ agree about everybody: as the first decides.
func TestChainAgrees(t *testing.T) {
	half := `{"new_ui": {"active": true, "percentage_rollout": 50, "guard": false}, "colour": {"active": true, "variants": {"red": {"weight": 50}, "blue": {"weight": 50}}, "guard": false}, "only_here": {"active": true}}`
	never := `{"new_ui": {"active": true, "percentage_rollout": 0}, "colour": {"active": true, "variants": {"blue": {"weight": 100}, "red": {"weight": 0}}}, "only_there": {"active": true}}`
	c, p := chained(t, "", trusting+"context {\nuser_id header X-User-ID\nuser_id sticky\n}", half, never)
	ways := map[string]int{}
	for i := range 60 {
		user := fmt.Sprintf("u%d", i)
		got := c.get("/", "X-User-ID", user).echoed(t).Header
		want := c.api("POST", "evaluate", `{"context": {"user_id": "`+user+`"}}`, 200)["decisions"].(map[string]any)
		for flag, header := range map[string]string{"new_ui": "X-Feature-New-Ui", "colour": "X-Feature-Colour"} {
			if w := want[flag].(map[string]any)["variant"]; got.Get(header) != w {
				t.Errorf("%s: %s is %q, want %q", user, flag, got.Get(header), w)
			}
		}
		if got.Get("X-Feature-Only-There") != "on" || got.Get("X-Feature-Only-Here") != "" {
			t.Errorf("%v, want each hop to tell what it knows", got)
		}
		if way := got.Get("X-Way"); (way == "new") != (got.Get("X-Feature-New-Ui") == "on") {
			t.Errorf("%s went the %s way", user, way)
		}
		ways[got.Get("X-Way")]++
		if got.Get("Feature-Decisions") == "" {
			t.Error("the application cannot pass the decisions on")
		}
	}
	if ways["new"] < 10 || ways["old"] < 10 {
		t.Errorf("%v, want about half each", ways)
	}
	// Somebody who is anonymous: one sticky id for both hops.
	for range 20 {
		r := c.get("/")
		ids := 0
		for _, line := range r.header["Set-Cookie"] {
			if strings.HasPrefix(line, "feature_flags_id=") {
				ids++
			}
		}
		if got := r.echoed(t).Header; ids != 1 || (got.Get("X-Way") == "new") != (got.Get("X-Feature-New-Ui") == "on") {
			t.Errorf("%d ids, %v", ids, got)
		}
	}
	if out, _, _ := p.command("", "show", "new_ui", "--address", p.admin); !strings.Contains(out, "new_ui") {
		t.Error(out)
	}
	// The second hop's own kill switch is its own.
	if _, errs, status := p.command("", "disable", "new_ui", "--address", p.admin); status != 0 {
		t.Fatal(errs)
	}
	for i := range 20 {
		if got := c.get("/", "X-User-ID", fmt.Sprintf("u%d", i)).echoed(t).Header; got.Get("X-Way") != "old" || got.Get("X-Feature-New-Ui") != "off" {
			t.Fatalf("disabled, and %v", got)
		}
	}
}

// A hop that does not know who asks believes the earlier one, and its guard still
// compares canary and control.
func TestChainWithoutContext(t *testing.T) {
	half := `{"new_ui": {"active": true, "percentage_rollout": 50}}`
	c, p := chained(t, "", trusting, half, half)
	ways := map[string]int{}
	for i := range 40 {
		ways[c.get("/", "X-User-ID", fmt.Sprintf("u%d", i)).echoed(t).Header.Get("X-Way")]++
	}
	if ways["new"] < 8 || ways["old"] < 8 {
		t.Errorf("%v, want about half each", ways)
	}
	eventually(t, 5*time.Second, "the second hop's guard sees nothing", func() bool {
		r := fetch(t, "http://"+p.admin+"/feature_flags/flags/new_ui")
		return strings.Contains(r.body, fmt.Sprintf(`"canary":{"requests":%d,"bad":0,"judged":%d`, ways["new"], ways["new"]))
	})
}

// What is not signed for this user and this moment is removed, and not believed.
func TestChainIsNotFooled(t *testing.T) {
	half := `{"new_ui": {"active": true, "percentage_rollout": 50, "guard": false}}`
	never := `{"new_ui": {"active": true, "percentage_rollout": 0}}`
	c, p := chained(t, "ttl 5s", trusting+"context {\nuser_id header X-User-ID\n}", half, never)
	signed, user := "", ""
	for i := 0; signed == ""; i++ {
		user = fmt.Sprintf("u%d", i)
		if got := c.get("/", "X-User-ID", user).echoed(t).Header; got.Get("X-Way") == "new" {
			signed = got.Get("Feature-Decisions")
		}
	}
	ask := func(name, want string, header ...string) {
		t.Helper()
		got := fetch(t, p.site+"/", header...).echoed(t).Header
		if way := got.Get("X-Way"); way != want {
			t.Errorf("%s: the way is %q, want %q", name, way, want)
		}
		if stripped := len(got["Feature-Decisions"]) == 0; stripped != (want == "old") {
			t.Errorf("%s: the application was sent %q", name, got["Feature-Decisions"])
		}
	}
	ask("as it was signed", "new", "X-User-ID", user, "Feature-Decisions", signed)
	ask("unsigned", "old", "X-User-ID", user, "Feature-Decisions", "new_ui")
	ask("forged", "old", "X-User-ID", user, "Feature-Decisions", strings.Replace(signed, "v1.1", "v1.2", 1))
	ask("another user", "old", "X-User-ID", "somebody", "Feature-Decisions", signed)
	ask("nobody", "old", "Feature-Decisions", signed)
	ask("truncated", "old", "X-User-ID", user, "Feature-Decisions", signed[:len(signed)-3])
	ask("twice", "old", "X-User-ID", user, "Feature-Decisions", signed, "Feature-Decisions", signed)
	ask("oversized", "old", "X-User-ID", user, "Feature-Decisions", signed+strings.Repeat(", a", 4000))
	ask("removed by Connection", "new", "X-User-ID", user, "Feature-Decisions", signed, "Connection", "Feature-Decisions")
	time.Sleep(5100 * time.Millisecond)
	ask("expired", "old", "X-User-ID", user, "Feature-Decisions", signed)
	_, text := scrape(t, "http://"+p.admin+"/metrics")
	for _, cause := range []string{"malformed", "forged", "user", "oversized", "expired"} {
		if !strings.Contains(text, `caddy_feature_flags_decisions_refused_total{cause="`+cause+`"}`) {
			t.Errorf("no metric of %s", cause)
		}
		if !strings.Contains(p.log.String(), `"cause":"`+cause+`","hint":"`) {
			t.Errorf("the log does not say what to do about %s", cause)
		}
	}
	// The edge believes nobody.
	if got := c.get("/", "X-User-ID", "u1", "Feature-Decisions", "forged").echoed(t).Header["Feature-Decisions"]; len(got) != 1 || !strings.HasPrefix(got[0], "v1.") {
		t.Errorf("the edge passes %q on", got)
	}
}

// After a fallback the next hop is told that the flag is off.
func TestChainAfterFallback(t *testing.T) {
	c := start(t, global+`http://:0 {
	bind 127.0.0.1
	feature_flags {
		context {
			user_id header X-User-ID
		}
		headers list X-Features
		propagate {
			key `+chainKey+`
			baggage
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
`, `{"new_ui": {"active": true}, "other": {"active": true, "percentage_rollout": 0}}`, map[string]string{"APP": host(echo(t, "app"))})
	got := c.get("/", "X-User-ID", "ann", "Baggage", "theirs=1;p=2, feature_flag.new_ui=on,feature_flag.forged=on").echoed(t).Header
	if v := got.Get("Feature-Decisions"); !strings.HasSuffix(v, " new_ui=?0;r=f, other=?0;r=s") {
		t.Errorf("Feature-Decisions: %q", v)
	}
	if v := got["Baggage"]; len(v) != 1 || v[0] != "theirs=1;p=2,feature_flag.new_ui=off,feature_flag.other=off" {
		t.Errorf("Baggage: %q", v)
	}
	if v := got.Get("X-Features"); v != "new_ui=?0, other=?0" {
		t.Errorf("X-Features: %q", v)
	}
}

// So many flags that they do not fit: they are not passed on, and it is said.
func TestChainOfManyFlags(t *testing.T) {
	var features strings.Builder
	for i := range 700 {
		fmt.Fprintf(&features, `%s"flag_%04d": {"active": true}`, map[bool]string{true: "{", false: ","}[i == 0], i)
	}
	features.WriteString("}")
	c := serve(t, site+`
	feature_flags {
		headers list X-Features
		propagate {
			key `+chainKey+`
			baggage
		}
	}
	reverse_proxy APP
}`, features.String(), map[string]string{"APP": host(echo(t, "app"))})
	got := c.get("/", "Baggage", "theirs=1").echoed(t).Header
	if got.Get("Feature-Decisions") != "" || got.Get("Baggage") != "theirs=1" || !strings.Contains(c.file("caddy.log"), "too long to be passed on") {
		t.Errorf("%.200q %.200q", got.Get("Feature-Decisions"), got.Get("Baggage"))
	}
	if status := c.get("/").status; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}
