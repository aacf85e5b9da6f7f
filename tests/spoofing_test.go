package tests

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
)

// spoofed is a request for the client's own idea of its flags. Names are sent
// as they are written here.
var spoofed = map[string]http.Header{
	"plain":                 {"X-Feature-New-Ui": {"on"}},
	"odd case":              {"x-FEATURE-new-uI": {"on"}},
	"twice":                 {"X-Feature-New-Ui": {"on", "on"}},
	"two spellings":         {"X-Feature-New-Ui": {"on"}, "x-feature-NEW-UI": {"on"}},
	"underscores":           {"X_Feature_New_Ui": {"on"}},
	"some underscores":      {"X-Feature-New_Ui": {"on"}},
	"unknown flag":          {"X-Feature-Admin": {"on"}},
	"the bare prefix":       {"X-Feature-": {"on"}},
	"named in Connection":   {"X-Feature-New-Ui": {"on"}, "Connection": {"X-Feature-New-Ui"}},
	"Connection, lower":     {"Connection": {"close, x-feature-new-ui"}},
	"Connection, twice":     {"Connection": {"keep-alive", "x-feature-new-ui", "X-Feature-Other"}},
	"Connection, odd blank": {"Connection": {"  x-feature-new-ui  ,,keep-alive"}},
	"the list":              {"X-Features": {"new_ui, other"}},
	"the list, underscore":  {"X_features": {"new_ui"}},
	"the list, Connection":  {"X-Features": {"new_ui"}, "Connection": {"x-features"}},
}

const spoofedFlags = `{
	"new_ui": {"active": true, "users": ["alice"]},
	"checkout.v2": {"active": true, "variants": {"blue": {"weight": 100, "value": {"a": 1}}}},
	"2nd": {"active": false}
}`

// ours are the headers that the application could take for flags.
func ours(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if n := strings.ReplaceAll(strings.ToLower(name), "_", "-"); strings.HasPrefix(n, "x-feature") {
			out[name] = values
		}
	}
	return out
}

// Whatever a client sends, the application is told what we decided, once.
func TestSpoofedHeaders(t *testing.T) {
	modes := []struct {
		name, option string
		alice, bob   http.Header
	}{
		{
			"each", "",
			http.Header{"X-Feature-New-Ui": {"on"}, "X-Feature-Checkout-V2": {"blue"}, "X-Feature-2nd": {"off"}},
			http.Header{"X-Feature-New-Ui": {"off"}, "X-Feature-Checkout-V2": {"blue"}, "X-Feature-2nd": {"off"}},
		},
		{
			"on_only", "headers X-Feature- on_only",
			http.Header{"X-Feature-New-Ui": {"on"}, "X-Feature-Checkout-V2": {"blue"}},
			http.Header{"X-Feature-Checkout-V2": {"blue"}},
		},
		{"list", "headers list X-Features", http.Header{"X-Features": {"*2nd=?0, checkout.v2=blue, new_ui"}}, http.Header{"X-Features": {"*2nd=?0, checkout.v2=blue, new_ui=?0"}}},
	}
	for _, mode := range modes {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(mode.name+" "+protocol, func(t *testing.T) {
				c := serve(t, site+`
					feature_flags {
						context {
							user_id header X-User-ID
						}
						`+mode.option+`
					}
					reverse_proxy UP
				}`, spoofedFlags, map[string]string{
					"UP":      host(echo(t, "app")),
					"SERVERS": "expected_underscore_headers X_Feature_New_Ui X_Features",
				})
				via := client
				if protocol == "HTTP/2.0" {
					via = h2c(t)
				}
				for _, name := range slices.Sorted(maps.Keys(spoofed)) {
					if protocol == "HTTP/2.0" && spoofed[name]["Connection"] != nil {
						continue // has no such header
					}
					if mode.name == "list" != strings.HasPrefix(name, "the list") && spoofed[name]["Connection"] == nil {
						continue // another header than the one it tells by
					}
					for user, want := range map[string]http.Header{"alice": mode.alice, "bob": mode.bob} {
						req, _ := http.NewRequest("GET", c.url(0), nil)
						req.Header = maps.Clone(spoofed[name])
						req.Header["X-User-Id"] = []string{user}
						if mode.name == "list" {
							for k := range req.Header { // the prefix is nobody's in this mode
								if strings.HasPrefix(k, "X-Feature-") {
									delete(req.Header, k)
								}
							}
						}
						got := ours(do(t, via, req).echoed(t).Header)
						if mode.name != "list" {
							delete(got, "X-Features")
						}
						if !maps.EqualFunc(got, want, slices.Equal) {
							t.Errorf("%s, %s: the application was told %v, want %v", name, user, got, want)
						}
					}
				}
			})
		}
	}
}

// Trailers come behind the body, and some servers take them for headers.
func TestSpoofedTrailers(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %v", body, r.Header["X-Feature-New-Ui"], r.Trailer)
	}))
	t.Cleanup(up.Close)
	c := serve(t, strings.Replace(proxied, "USE", "reverse_proxy UP", 1), onlyAlice, map[string]string{"UP": host(up)})
	for announced, want := range map[string]string{
		"":                                       "hello [off] map[]",
		"Trailer: X-Other, X-Feature-New-Ui\r\n": "hello [off] map[X-Other:[1]]",
		"Trailer: x-feature-new-ui\r\n":          "hello [off] map[X-Other:[1]]",
		"Trailer: X-Other\r\n":                   "hello [off] map[X-Other:[1]]", // the other comes unannounced
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.url(0), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%s\r\n5\r\nhello\r\n0\r\nx-feature-NEW-UI: on\r\nX-Other: 1\r\n\r\n", announced)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		conn.Close()
		if string(body) != want {
			t.Errorf("%q: the application got %q, want %q", announced, body, want)
		}
	}
}

// The list is a dictionary that a parser of RFC 9651 reads back.
func TestListIsADictionary(t *testing.T) {
	c := serve(t, site+`
		feature_flags {
			headers list X-Features
		}
		reverse_proxy UP
	}`, `{
		"New.UI": {"active": true}, "2nd": {"active": true}, "off_one": {"active": false},
		"colour": {"active": true, "variants": {"Blue-2.x": {"weight": 100}}},
		"number": {"active": true, "variants": {"2nd": {"weight": 100}}}
	}`, map[string]string{"UP": host(echo(t, "app"))})
	text := c.get("/").echoed(t).Header["X-Features"]
	dict, err := httpsfv.UnmarshalDictionary(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	want := map[string]any{"new.ui": true, "*2nd": true, "off_one": false, "colour": httpsfv.Token("Blue-2.x"), "number": "2nd"}
	for key, value := range want {
		member, ok := dict.Get(key)
		if item, is := member.(httpsfv.Item); !ok || !is || item.Value != value {
			t.Errorf("%q: member %s is %v, want %v", text, key, member, value)
		}
	}
	if len(dict.Names()) != len(want) {
		t.Errorf("%q has %d members, want %d", text, len(dict.Names()), len(want))
	}
}

// `headers off` tells nothing and leaves the request alone; `flags` tells those
// alone, unknown ones as off.
func TestHeadersOffAndFlags(t *testing.T) {
	c := serve(t, site+`
		handle /off {
			feature_flags {
				headers off
			}
			reverse_proxy UP
		}
		handle {
			feature_flags {
				flags 2nd nobody_knows
			}
			reverse_proxy UP
		}
	}`, spoofedFlags, map[string]string{"UP": host(echo(t, "app"))})
	if got := ours(c.get("/off").echoed(t).Header); len(got) != 0 {
		t.Errorf("headers off: the application was told %v", got)
	}
	got := ours(c.get("/", "X-Feature-Nobody-Knows", "on", "X-Feature-Checkout-V2", "blue").echoed(t).Header)
	if want := (http.Header{"X-Feature-2nd": {"off"}, "X-Feature-Nobody-Knows": {"off"}}); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("flags: the application was told %v, want %v", got, want)
	}
}

// So many flags that they are decided all at once.
const (
	manyFlags = `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0},
		"a": {"active": true}, "b": {"active": true}, "c": {"active": true}, "d": {"active": true}, "e": {"active": true}, "f": {"active": true},
		"g": {"active": true}, "h": {"active": true}, "i": {"active": true}, "j": {"active": true}, "2nd": {"active": false}}`
	manyFlagsTold = "*2nd=?0, a, b, c, d, e, f, g, h, i, j, new_ui"
)

// Two handlers on the way of one request: each tells in its own way, both the
// same decisions; the first one's context stands, and the outcome counts once.
func TestTwoHandlers(t *testing.T) {
	second := map[string]string{
		"another prefix": "headers X-Second-", "a list": "headers list X-Second-List", "on_only": "headers X-Second- on_only",
		"the same": "", "some flags": "flags 2nd new_ui\nheaders X-Second-",
	}
	for first, told := range map[string]string{"headers X-Feature-": "X-Feature-New-Ui", "headers list X-Features": "X-Features"} {
		for name, option := range second {
			t.Run(first+", then "+name, func(t *testing.T) {
				c := serve(t, site+`
					feature_flags {
						context {
							user_id header X-User-ID
						}
						`+first+`
					}
					handle {
						feature_flags {
							context {
								user_id header X-Other-ID
							}
							`+option+`
						}
						reverse_proxy UP
					}
				}`, manyFlags, map[string]string{"UP": host(echo(t, "app"))})
				h := c.get("/", "X-User-ID", "alice", "X-Other-ID", "bob").echoed(t).Header
				want := map[string]string{"X-Feature-New-Ui": "on", "X-Features": manyFlagsTold}
				if v := h.Values(told); len(v) != 1 || v[0] != want[told] {
					t.Errorf("first handler: %s is %q, want %s", told, v, want[told])
				}
				if name == "a list" && h.Get("X-Second-List") != manyFlagsTold {
					t.Errorf("second handler: %q, want %q", h.Get("X-Second-List"), manyFlagsTold)
				}
				for k, v := range h {
					if strings.Contains(option, "X-Second-") && strings.HasPrefix(k, "X-Second-") && !strings.HasSuffix(k, "2nd") && (len(v) != 1 || v[0] != "on" && v[0] != manyFlagsTold) {
						t.Errorf("second handler: %s is %q, want on", k, v)
					}
				}
				if strings.Contains(option, "X-Second") && h["X-Second-New-Ui"] == nil && h["X-Second-List"] == nil {
					t.Errorf("second handler told nothing: %v", h)
				}
				if g := c.settled("new_ui", 1); g.Guard.Figures.Canary.Requests != 1 || g.Guard.Figures.Control.Requests != 0 {
					t.Errorf("figures %+v, want one request of the canary", g.Guard.Figures)
				}
			})
		}
	}
}

// What the client sends reaches placeholders of ours neither as a decision nor
// as a name.
func TestPlaceholders(t *testing.T) {
	c := serve(t, site+`
		feature_flags {
			context {
				user_id header X-User-ID
			}
		}
		respond "{http.feature_flags.new_ui} {http.feature_flags.new_ui.reason} {http.feature_flags.checkout.v2} {http.feature_flags.checkout.v2.value} {http.feature_flags.checkout.v2.reason} {http.feature_flags.nobody} {http.feature_flags.nobody.reason}"
	}`, spoofedFlags, nil)
	for user, want := range map[string]string{
		"alice": `on TARGETING_MATCH blue {"a":1} STATIC off ERROR`,
		"bob":   `off DEFAULT blue {"a":1} STATIC off ERROR`,
	} {
		r := c.get("/?new_ui=on", "X-User-ID", user, "X-Feature-New-Ui", "on", "X-Feature-Nobody", "on")
		if r.body != want {
			t.Errorf("%s: %q, want %q", user, r.body, want)
		}
	}
}

// Two flags that would share a header are refused when they are loaded.
func TestSharedHeaderIsRefused(t *testing.T) {
	c := serve(t, site+"\n\tfeature_flags\n}\n", onlyAlice, nil)
	c.write("features.json", `{"new_ui": {"active": true}, "new.ui": {"active": true}}`)
	if err := c.load(); err == nil || !strings.Contains(err.Error(), "new.ui") || !strings.Contains(err.Error(), "new_ui") {
		t.Errorf("loading: %v, want both flags named", err)
	}
}
