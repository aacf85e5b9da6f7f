package tests

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

const userContext = `
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
`

func TestRoute(t *testing.T) {
	flags := `{
		"new_ui": {"active": true, "users": ["alice", "carol"], "percentage_rollout": 0},
		"inner": {"active": true, "users": ["alice"]},
		"colour": {"active": true, "variants": {"blue": {"weight": 100}}},
		"dark": {"active": false}
	}`
	tests := []struct {
		name, site string
		want       map[string]string // by user
	}{
		{"on and off", `feature_route new_ui {
			on {
				respond "new"
			}
			off {
				respond "old"
			}
		}`, map[string]string{"alice": "new", "bob": "old", "": "old"}},
		{"on alone, the rest goes on", `feature_route new_ui {
			on {
				respond "new"
			}
		}
		respond "rest"`, map[string]string{"alice": "new", "bob": "rest"}},
		{"off alone", `feature_route new_ui {
			off {
				respond "old"
			}
		}
		respond "rest"`, map[string]string{"alice": "rest", "bob": "old"}},
		{"a way that only sets a header goes on", `feature_route new_ui {
			on {
				header X-Way new
			}
		}
		respond "{http.response.header.X-Way}rest"`, map[string]string{"alice": "newrest", "bob": "rest"}},
		{"variant", `feature_route colour {
			variant blue {
				respond "blue"
			}
			variant red {
				respond "red"
			}
			on {
				respond "on"
			}
			off {
				respond "off"
			}
		}`, map[string]string{"bob": "blue"}},
		{"a variant without a way goes on's", `feature_route colour {
			variant red {
				respond "red"
			}
			on {
				respond "on"
			}
		}`, map[string]string{"bob": "on"}},
		{"nested", `feature_route new_ui {
			on {
				feature_route inner {
					on {
						respond "new inner"
					}
					off {
						respond "new"
					}
				}
			}
			off {
				respond "old"
			}
		}`, map[string]string{"alice": "new inner", "carol": "new", "bob": "old"}},
		{"the same flag nested", `feature_route new_ui {
			on {
				feature_route new_ui {
					on {
						respond "twice"
					}
					off {
						respond "torn"
					}
				}
			}
			off {
				respond "old"
			}
		}`, map[string]string{"alice": "twice", "bob": "old"}},
		{"inside handle, behind a matcher", `handle /x* {
			feature_route new_ui {
				on {
					respond "new {path}"
				}
				off {
					respond "old {path}"
				}
			}
		}
		respond "rest"`, map[string]string{"alice": "new /x1", "bob": "old /x1"}},
		{"a flag that nobody defines", `feature_route nobody {
			on {
				respond "new"
			}
			off {
				respond "old"
			}
		}`, map[string]string{"alice": "old"}},
		{"an inactive flag", `feature_route dark {
			on {
				respond "new"
			}
			off {
				respond "old"
			}
		}`, map[string]string{"alice": "old"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// In a route, since `respond` comes before feature_route otherwise.
			c := serve(t, site+"route {"+userContext+test.site+"\n}\n}\n", flags, nil)
			for user, want := range test.want {
				headers := []string{"X-User-ID", user}
				if user == "" {
					headers = nil
				}
				if r := c.get("/x1", headers...); r.status != 200 || r.body != want {
					t.Errorf("%q: status %d, %q, want %q", user, r.status, r.body, want)
				}
			}
		})
	}
}

// Each route tells the outcome of its own flag, once, and of no other.
func TestRouteOutcomes(t *testing.T) {
	c := serve(t, site+"route {"+userContext+`
		feature_route new_ui {
			on {
				feature_route inner {
					on {
						respond 500
					}
				}
			}
		}
		respond "rest"
	}
	}`, `{"new_ui": {"active": true, "users": ["alice"]}, "inner": {"active": true, "users": ["alice"]}, "beside": {"active": true}}`, nil)
	c.get("/", "X-User-ID", "alice")
	c.get("/", "X-User-ID", "bob")
	for flag, want := range map[string]int{"new_ui": 1, "inner": 1, "beside": 2} {
		f := c.settled(flag, want).Guard.Figures
		if f.Canary.Requests != want || f.Canary.Errors != 1 || f.Control.Requests != 2-want {
			t.Errorf("%s: %+v, want %d requests with the flag on, 1 of them failed", flag, f, want)
		}
	}
	told := c.entries(2)[0].Flags
	if len(told) != 3 || told["inner"].Outcome != "error" {
		t.Errorf("access log %+v, want all three flags, once each", told)
	}
}

// A canary that fails and is caught outside the route failed all the same.
func TestRouteTellsTheCanarysOwnResult(t *testing.T) {
	c := serve(t, site+userContext+`
		feature_route new_ui {
			on {
				reverse_proxy DEAD
			}
			off {
				respond "old"
			}
		}
		handle_errors {
			respond "sorry" 200
		}
	}`, onlyAlice, map[string]string{"DEAD": freeAddress(t)})
	if r := c.get("/", "X-User-ID", "alice"); r.status != 200 || r.body != "sorry" {
		t.Fatalf("status %d, %q", r.status, r.body)
	}
	if g := c.settled("new_ui", 1).Guard; g.Canary.Errors != 1 {
		t.Errorf("guard %+v, want the error", g)
	}
}

// Without a feature_flags block the context holds a sticky id and nothing else.
func TestRouteAlone(t *testing.T) {
	c := serve(t, site+`
		feature_route half {
			on {
				respond "new {http.feature_flags.half.reason} {http.feature_flags.alices}"
			}
			off {
				respond "old {http.feature_flags.half.reason} {http.feature_flags.alices}"
			}
		}
	}`, `{"half": {"active": true, "percentage_rollout": 50}, "alices": {"active": true, "users": ["alice"]}}`, nil)
	seen := map[string]int{}
	for range 40 {
		r := c.get("/", "X-User-ID", "alice")
		seen[r.body]++
		id := cookieOf(t, r)
		for range 3 {
			again := c.get("/", "Cookie", "feature_flags_id="+id)
			if again.body != r.body || again.header["Set-Cookie"] != nil {
				t.Fatalf("the same person got %q, then %q and %q", r.body, again.body, again.header["Set-Cookie"])
			}
		}
		if v := varies(r.header); !slices.Equal(v, []string{"cookie"}) {
			t.Fatalf("Vary: %q, want cookie", v)
		}
	}
	if len(seen) != 2 || seen["new SPLIT off"] == 0 || seen["old SPLIT off"] == 0 {
		t.Errorf("40 strangers got %v, want both ways", seen)
	}
	if f := c.settled("half", 4).Guard.Figures; f.Canary.Requests+f.Control.Requests != 160 {
		eventually(t, 2*time.Second, "160 requests counted", func() bool {
			f := c.guard("half").Guard.Figures
			return f.Canary.Requests+f.Control.Requests == 160
		})
	}
}

// cookieOf returns the sticky id that an answer sets.
func cookieOf(t *testing.T, r reply) string {
	t.Helper()
	for _, line := range r.header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == "feature_flags_id" {
			return c.Value
		}
	}
	t.Fatalf("status %d sets no id: %q", r.status, r.header["Set-Cookie"])
	return ""
}
