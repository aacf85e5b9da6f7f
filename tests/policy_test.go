package tests

import (
	"net/http"
	"strings"
	"testing"
)

// policySite proxies by lb_policy feature; POLICY is its block, OPTIONS those of
// the proxy, and UPA, UPB and UPC are upstreams that say A, B and C.
const policySite = site + userContext + `
	reverse_proxy UPA UPB UPC {
		lb_policy feature new_ui {
			POLICY
		}
		OPTIONS
	}
}
`

func policy(t *testing.T, block, options, features string, words map[string]string) *instance {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{"A", "B", "C"} {
		all["UP"+name] = host(echo(t, name))
	}
	for k, v := range words {
		all[k] = v
	}
	return serve(t, strings.NewReplacer("POLICY", block, "OPTIONS", options).Replace(policySite), features, all)
}

func TestPolicy(t *testing.T) {
	tests := []struct {
		name, block, features string
		want                  map[string]string // by user, the upstreams' names
	}{
		{"one each", "on UPA\n off UPC", onlyAlice, map[string]string{"alice": "A", "bob": "C"}},
		{"several", "on UPA UPB\n off UPC", onlyAlice, map[string]string{"alice": "AB", "bob": "C"}},
		{"several lines", "on UPA\n on UPB\n off UPC", onlyAlice, map[string]string{"alice": "AB", "bob": "C"}},
		{
			"variants", "variant blue UPA\n variant red UPB\n off UPC",
			`{"new_ui": {"active": true, "variants": {"blue": {"weight": 100}, "red": {"weight": 0}}, "rules": [{"when": "user_id == 'alice'", "serve": "red"}, {"when": "user_id == 'nobody'", "serve": "off"}]}}`,
			map[string]string{"alice": "B", "bob": "A", "nobody": "C"},
		},
		{
			"a variant beside on", "variant blue UPA\n on UPB\n off UPC",
			`{"new_ui": {"active": true, "variants": {"blue": {"weight": 0}, "red": {"weight": 100}}, "rules": [{"when": "user_id == 'alice'", "serve": "blue"}]}}`,
			map[string]string{"alice": "A", "bob": "B"},
		},
		{"off for everyone", "on UPA\n off UPB UPC", `{"new_ui": {"active": false}}`, map[string]string{"alice": "BC"}},
		{"a flag that nobody defines", "on UPA\n off UPB UPC", `{}`, map[string]string{"alice": "BC"}},
		{"addresses with a scheme", "on http://UPA\n off http://UPC", onlyAlice, map[string]string{"alice": "A", "bob": "C"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := policy(t, test.block, "", test.features, nil)
			for user, names := range test.want {
				seen := map[string]bool{}
				for range 30 {
					seen[c.get("/", "X-User-ID", user).echoed(t).Name] = true
				}
				for _, name := range strings.Split(names, "") {
					if !seen[name] {
						t.Errorf("%s: %s was never asked in 30 requests, only %v", user, name, seen)
					}
					delete(seen, name)
				}
				if len(seen) > 0 {
					t.Errorf("%s: served by %v, want %s only", user, seen, names)
				}
			}
		})
	}
}

// Where nobody can serve the canary its users get the old way, and the canary
// has failed.
func TestPolicyServesByOff(t *testing.T) {
	tests := []struct {
		name, block, options string
		requests, errors     int // of alice, all served
		log                  string
	}{
		{"a later try", "on DEAD\n off UPC", "lb_retries 2\nfail_duration 1m", 1, 1, "no upstream of the canary is available"},
		{"known to be down", "on DEAD\n off UPC", "lb_retries 2\nfail_duration 1m", 5, 5, "no upstream of the canary is available"},
		{"one of two is down", "on DEAD UPA\n off UPC", "lb_retries 3\nfail_duration 1m", 8, 0, ""},
		{"an address that the proxy does not have", "on 127.0.0.1:1\n off UPC", "", 3, 3, "names upstreams that its reverse_proxy does not have"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dead := freeAddress(t)
			c := policy(t, test.block, test.options, onlyAlice, map[string]string{"UPB": dead, "DEAD": dead})
			for range test.requests {
				r := c.get("/", "X-User-ID", "alice")
				if name := r.echoed(t).Name; r.status != 200 || name != "C" && (test.errors > 0 || name != "A") {
					t.Fatalf("status %d, %q", r.status, r.body)
				}
			}
			c.get("/", "X-User-ID", "bob")
			g := c.settled("new_ui", test.requests).Guard
			if g.Canary.Requests != test.requests || g.Canary.Errors != test.errors || g.Control.Requests != 1 || g.Control.Errors != 0 {
				t.Errorf("guard %+v, want %d errors of %d by the canary, none by the control", g, test.errors, test.requests)
			}
			if log := c.file("caddy.log"); strings.Contains(log, test.log) != true || test.log == "" && strings.Contains(log, "canary is available") {
				t.Errorf("log without %q:\n%s", test.log, log)
			}
			if n := strings.Count(c.file("caddy.log"), "canary is available"); n > 1 {
				t.Errorf("the same warning %d times in a moment", n)
			}
		})
	}
}

// A canary without upstreams trips, and is off from the next request on.
func TestPolicyTrips(t *testing.T) {
	dead := freeAddress(t)
	c := policy(t, "on DEAD\n off UPC", "lb_retries 2\nfail_duration 1m", strings.Replace(onlyAlice, `"active"`, `"error_threshold": 2, "active"`, 1),
		map[string]string{"UPB": dead, "DEAD": dead})
	for i := range 4 {
		r := c.get("/", "X-User-ID", "alice")
		want := map[bool]string{true: "on", false: "off"}[i < 3]
		if got := r.echoed(t); r.status != http.StatusOK || got.Name != "C" || got.Header.Get("X-Feature-New-Ui") != want {
			t.Errorf("request %d: status %d from %s, told %q, want %s", i+1, r.status, got.Name, got.Header.Get("X-Feature-New-Ui"), want)
		}
	}
	if g := c.guard("new_ui"); g.Status != "tripped" || g.State.Trips[0].Evidence.Found != 3 {
		t.Errorf("%s, %+v, want a trip by the third", g.Status, g.State)
	}
}

func TestPolicyRefusesBadConfig(t *testing.T) {
	const good = "on UPA\n off UPC"
	c := policy(t, good, "", onlyAlice, nil)
	text := c.text
	for block, want := range map[string]string{
		"on UPA":                 "off",
		"off UPC":                "on",
		good + "\n maybe UPB":    "maybe",
		"variant blue\n " + good: "variant",
		"on\n off UPC":           "on",
	} {
		c.text = strings.Replace(text, good, block, 1)
		if err := c.load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want it to name %q", block, err, want)
		}
	}
}
