package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const varyFlags = `{
	"by_user": {"active": true, "percentage_rollout": 50},
	"by_region": {"active": true, "regions": ["US"]},
	"by_plan": {"active": true, "account_types": ["premium"]},
	"by_device": {"active": true, "devices": ["mobile"]},
	"by_beta": {"active": true, "beta_program": true},
	"by_tenant": {"active": true, "rules": [{"when": "tenant == 'a'", "serve": "on"}, {"when": "true", "serve": "off"}]},
	"by_address": {"active": true, "rules": [{"when": "address == '10.0.0.1'", "serve": "on"}, {"when": "true", "serve": "off"}]},
	"by_host": {"active": true, "rules": [{"when": "site == 'a'", "serve": "on"}, {"when": "true", "serve": "off"}]},
	"by_two": {"active": true, "regions": ["US"], "devices": ["mobile"], "percentage_rollout": 10},
	"by_dependency": {"active": true, "depends_on": ["by_region"]},
	"static": {"active": true},
	"dark": {"active": false}
}`

// varying gives what each flag's decision is read from in varyContext.
var varying = map[string][]string{
	"by_user":       {"cookie", "x-user-id"},
	"by_region":     {"cf-ipcountry"},
	"by_plan":       {"authorization"},
	"by_device":     {"user-agent"},
	"by_beta":       {"cookie"},
	"by_tenant":     {"x-tenant"},
	"by_address":    {"*"},
	"by_host":       nil,
	"by_two":        {"cf-ipcountry", "cookie", "user-agent", "x-user-id"},
	"by_dependency": {"cf-ipcountry"},
	"static":        nil,
	"dark":          nil,
}

const varyContext = `
	context {
		user_id      header X-User-ID
		user_id      cookie uid
		region       header CF-IPCountry
		account_type jwt plan
		beta_program cookie beta
		device       user_agent
		tenant       value {header.X-Tenant}
		address      value {remote_host}
		site         value {host}
	}
	jwt {
		secret 0123456789abcdef0123456789abcdef
		algorithms HS256
	}
`

// A response that a flag decided says by what, however the flag was asked.
func TestVary(t *testing.T) {
	ways := map[string]string{
		"route": `feature_route FLAG {
			on {
				respond "on"
			}
			off {
				respond "off"
			}
		}`,
		"failing route": `feature_route FLAG {
			on {
				error 500
			}
			off {
				error 500
			}
		}`,
		"matcher": `@m feature FLAG
			respond @m "on"
			respond "off"`,
		"policy": `reverse_proxy UP OTHER {
			lb_policy feature FLAG {
				on UP
				off OTHER
			}
		}`,
	}
	for way, text := range ways {
		t.Run(way, func(t *testing.T) {
			sites := site + "feature_flags {" + varyContext + "}\n"
			for flag := range varying {
				sites += "handle /" + flag + " {\n" + strings.ReplaceAll(strings.ReplaceAll(text, "FLAG", flag), "@m", "@"+flag) + "\n}\n"
			}
			c := serve(t, sites+"}", varyFlags, map[string]string{"UP": host(echo(t, "a")), "OTHER": host(echo(t, "b"))})
			for flag, want := range varying {
				r := c.get("/" + flag)
				if got := varies(r.header); !slices.Equal(got, want) {
					if flag == "dark" && len(got) == 0 {
						continue
					}
					t.Errorf("%s: Vary %q, want %q", flag, got, want)
				}
			}
		})
	}
}

func TestVaryOptions(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding, cf-ipcountry")
		fmt.Fprint(w, "hello")
	}))
	t.Cleanup(upstream.Close)
	tests := []struct {
		name, option, rest string
		want               []string
	}{
		{"headers that are injected say nothing", "", "respond hello", nil},
		{"unless asked to", "vary\nflags by_region by_device static", "respond hello", []string{"cf-ipcountry", "user-agent"}},
		{"all flags", "vary", "respond hello", []string{"*"}},
		{"vary off", "", "feature_route by_region {\non {\nrespond on\n}\noff {\nrespond off\n}\nvary off\n}", nil},
		{"two routes, nested", "", "feature_route by_region {\noff {\nfeature_route by_two {\noff {\nrespond off\n}\n}\n}\n}", []string{"cf-ipcountry", "cookie", "user-agent", "x-user-id"}},
		{"matcher and route of one flag", "", "@m feature by_region\nrespond @m on\nfeature_route by_region {\noff {\nreverse_proxy PLAIN\n}\n}", []string{"cf-ipcountry"}},
		{"a handler behind that sets its own", "", "feature_route by_region {\noff {\nheader Vary Accept\nrespond off\n}\n}", []string{"accept", "cf-ipcountry"}},
		{"a handler behind that removes it", "", "feature_route by_region {\noff {\nroute {\nheader -Vary\nrespond off\n}\n}\n}", []string{"cf-ipcountry"}},
		{"a route that only passes", "", "feature_route by_region {\non {\nrespond on\n}\n}\nreverse_proxy PLAIN", []string{"cf-ipcountry"}},
		{"a flag that nobody defines", "", "feature_route nobody {\noff {\nrespond off\n}\n}", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := serve(t, site+"feature_flags {"+varyContext+test.option+"\n}\n"+test.rest+"\n}", varyFlags,
				map[string]string{"PLAIN": host(echo(t, "plain"))})
			if got := varies(c.get("/").header); !slices.Equal(got, test.want) {
				t.Errorf("Vary %q, want %q", got, test.want)
			}
		})
	}
	t.Run("an upstream that varies itself", func(t *testing.T) {
		c := serve(t, site+"feature_flags {"+varyContext+"\n}\nfeature_route by_two {\noff {\nreverse_proxy UP\n}\n}\n}", varyFlags, map[string]string{"UP": host(upstream)})
		got := slices.Compact(varies(c.get("/").header))
		if want := []string{"accept-encoding", "cf-ipcountry", "cookie", "user-agent", "x-user-id"}; !slices.Equal(got, want) {
			t.Errorf("Vary %q, want %q", got, want)
		}
	})
}
