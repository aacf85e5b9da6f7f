package tests

import (
	"strings"
	"testing"
	"time"
)

func TestMatcher(t *testing.T) {
	flags := `{
		"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0},
		"colour": {"active": true, "variants": {"blue": {"weight": 100}, "red": {"weight": 0}}, "rules": [{"when": "user_id == 'alice'", "serve": "red"}, {"when": "user_id == 'carol'", "serve": "off"}]}
	}`
	for matcher, yes := range map[string]string{ // users for whom it matches
		"feature new_ui":                                     "alice",
		"feature new_ui on":                                  "alice",
		"feature new_ui off":                                 "bob carol",
		"feature new_ui blue":                                "",
		"not feature new_ui":                                 "bob carol",
		"feature colour":                                     "alice bob",
		"feature colour blue":                                "bob",
		"feature colour blue red":                            "alice bob",
		"feature colour off red":                             "alice carol",
		"feature nobody":                                     "",
		"feature nobody off":                                 "alice bob carol",
		"not feature nobody":                                 "alice bob carol",
		"expression feature('new_ui')":                       "alice",
		"expression !feature('new_ui')":                      "bob carol",
		"expression feature('new_ui', 'on')":                 "alice",
		"expression feature('colour', 'red', 'off')":         "alice carol",
		"expression feature('new_ui') && path('/x*')":        "alice",
		"expression feature('new_ui') && path('/y*')":        "",
		"expression `{http.feature_flags.colour} == 'blue'`": "bob",
	} {
		t.Run(strings.NewReplacer("{", "", "}", "").Replace(matcher), func(t *testing.T) {
			c := serve(t, site+userContext+"@m "+matcher+`
				respond @m "yes"
				respond "no"
			}`, flags, nil)
			for _, user := range []string{"alice", "bob", "carol"} {
				want := map[bool]string{true: "yes", false: "no"}[strings.Contains(yes, user)]
				if r := c.get("/x", "X-User-ID", user); r.status != 200 || r.body != want {
					t.Errorf("%s: status %d, %q, want %s", user, r.status, r.body, want)
				}
			}
		})
	}
}

// Matchers of one request agree with each other, with the header and the route,
// and make it one exposure.
func TestMatchersAgree(t *testing.T) {
	c := serve(t, site+userContext+`
		@a feature half
		@b expression feature('half')
		@off feature half off
		route {
			header @a X-A yes
			header @b X-B yes
			header @off X-Off yes
			feature_route half {
				on {
					header X-Route yes
				}
			}
			respond "{http.feature_flags.half}"
		}
	}`, `{"half": {"active": true, "percentage_rollout": 50}}`, nil)
	seen := map[string]int{}
	for i := range 40 {
		r := c.get("/", "X-User-ID", strings.Repeat("u", i+1))
		h := r.header
		on := h.Get("X-A") + h.Get("X-B") + h.Get("X-Off") + h.Get("X-Route")
		if r.body == "on" && (on != "yesyesyes" || h.Get("X-Off") != "") || r.body == "off" && (on != "yes" || h.Get("X-Off") != "yes") {
			t.Errorf("%q: %v", r.body, h)
		}
		seen[r.body]++
	}
	eventually(t, 5*time.Second, "40 requests counted once each", func() bool {
		f := c.guard("half").Guard.Figures
		return f.Canary.Requests == seen["on"] && f.Control.Requests == seen["off"]
	})
	if seen["on"] == 0 || seen["off"] == 0 {
		t.Errorf("%v, want both", seen)
	}
}

// A matcher that is asked before the context was read decides without one. That
// decision stands for the request, is warned of, and is kept from others'.
func TestMatcherAskedTooEarly(t *testing.T) {
	many := strings.Replace(manyFlags, `{"new_ui"`, `{"k": {"active": true}, "new_ui"`, 1)
	for name, flags := range map[string]string{"one flag": onlyAlice, "many flags": many} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, site+`
				@early expression path('/early') && feature('new_ui')
				route {
					respond @early "matched"
					feature_flags {
						context {
							user_id header X-User-ID
						}
					}
					reverse_proxy UP
				}
			}`, flags, map[string]string{"UP": host(echo(t, "app"))})
			for range 3 {
				if got := c.get("/early", "X-User-ID", "alice").echoed(t).Header.Get("X-Feature-New-Ui"); got != "off" {
					t.Errorf("asked early: told %q, want the off that the matcher saw", got)
				}
				if got := c.get("/", "X-User-ID", "alice").echoed(t).Header.Get("X-Feature-New-Ui"); got != "on" {
					t.Errorf("not asked early: told %q, want on", got)
				}
			}
			if n := strings.Count(c.file("caddy.log"), "before feature_flags had read the context"); n != 1 {
				t.Errorf("warned %d times, want once", n)
			}
			if f := c.settled("new_ui", 3).Guard.Figures; f.Canary.Requests != 3 || f.Control.Requests != 3 {
				t.Errorf("figures %+v, want 3 and 3", f)
			}
		})
	}
}

// In a site without feature_flags a matcher before the route takes nothing from
// it: the stranger gets an id, and both flags' outcomes count.
func TestMatcherBeforeRouteAlone(t *testing.T) {
	c := serve(t, site+`
		@dark not feature dark
		header @dark X-Dark no
		feature_route half {
			on {
				reverse_proxy UP
			}
			off {
				reverse_proxy UP
			}
		}
	}`, `{"half": {"active": true, "percentage_rollout": 50}, "dark": {"active": true, "percentage_rollout": 0.001}}`, map[string]string{"UP": host(echo(t, "app"))})
	seen, dark := map[string]bool{}, 0
	for range 20 {
		r := c.get("/")
		id := cookieOf(t, r)
		if r.header.Get("X-Dark") != "no" {
			dark++
		}
		again := c.get("/", "Cookie", "feature_flags_id="+id)
		if again.header["Set-Cookie"] != nil {
			t.Errorf("a known person was given another id: %q", again.header["Set-Cookie"])
		}
	}
	for _, e := range c.entries(40) {
		seen[e.Flags["half"].Variant] = true
	}
	if dark > 1 { // one of a hundred thousand gets it
		t.Errorf("dark for %d of 20", dark)
	}
	if !seen["on"] || !seen["off"] {
		t.Errorf("20 people got %v, want both ways", seen)
	}
	for _, flag := range []string{"half", "dark"} {
		eventually(t, 2*time.Second, flag+": 40 requests counted", func() bool {
			f := c.guard(flag).Guard.Figures
			return f.Canary.Requests+f.Control.Requests == 40
		})
	}
}
