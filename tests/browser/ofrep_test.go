package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// shop is a site with a page that asks for flags, and a way that a flag decides.
const shop = `SITE {
	feature_flags {
		context {
			user_id header X-User-ID
			region  header X-Region
		}
	}
	feature_flags_ofrep {
		OPTIONS
	}
	handle /npm/* {
		root * NPM
		uri strip_prefix /npm
		file_server
	}
	handle /shop {
		feature_route new_look {
			on {
				reverse_proxy NEW
			}
			off {
				respond "the old look"
			}
		}
	}
	handle {
		root * PAGE
		file_server
	}
}
`

const shopFlags = `{
	"new_look": {"active": true, "client": true, "error_threshold": 2},
	"split": {"active": true, "client": true, "percentage_rollout": 50},
	"regional": {"active": true, "client": true, "regions": ["RO"]},
	"listed": {"active": true, "client": true, "users": ["alice"]},
	"colour": {"active": true, "client": true, "rules": [{"name": "gold", "when": "plan == \"gold\"", "serve": "gold"}],
		"variants": {"gold": {"weight": 0, "value": "#fc0"}, "plain": {"weight": 100, "value": "#999"}}},
	"limits": {"active": true, "client": true, "variants": {"large": {"weight": 100, "value": {"items": 40, "ratio": 0.5}}}},
	"size": {"active": true, "client": true, "variants": {"big": {"weight": 100, "value": 12}}},
	"gone": {"active": false, "client": true},
	"listing": {"active": true, "client": true, "variants": {"all": {"weight": 100, "value": [1, 2]}}},
	"hidden": {"active": true}
}`

// visit opens the page and waits until it has its flags.
func (b *tab) visit(s *server, query ...string) {
	b.t.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	b.do(chromedp.Navigate(s.site + "/?" + q.Encode()))
	b.until(10*time.Second, "window.state", "ready")
}

// details are what the SDK says about a flag.
type details struct {
	Value        any
	Reason       string
	Variant      string
	ErrorCode    string
	ErrorMessage string
}

func (b *tab) details(kind, flag, fallback string) details {
	b.t.Helper()
	return eval[details](b, fmt.Sprintf("window.details(%q, %q, %s)", kind, flag, fallback))
}

// statuses waits until the page's requests for all flags are answered, and tells
// how, in order.
func (b *tab) statuses() (out []int64) {
	b.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		out = out[:0]
		for _, r := range b.seen("/ofrep/v1/evaluate/flags") {
			if r.method != "OPTIONS" {
				out = append(out, r.status)
			}
		}
		if !slices.Contains(out, 0) {
			return out
		}
	}
	b.t.Fatalf("not answered: %v", out)
	return nil
}

// The OpenFeature project's own client gets values and reasons, notices a change of
// context that it does not tell apart itself, and hears of a trip at once.
func TestOpenFeatureWebSDK(t *testing.T) {
	s := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "", "NEW": upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	})})
	b := open(t)
	b.visit(s, "cacheMode", "network-first", "context", `{"targetingKey": "alice", "region": "RO", "plan": "gold"}`)

	t.Run("values and reasons", func(t *testing.T) {
		for _, c := range []struct {
			kind, flag, fallback string
			value                string
			want                 details
		}{
			{"Boolean", "new_look", "false", "true", details{Reason: "STATIC", Variant: "on"}},
			{"Boolean", "split", "true", fmt.Sprint(s.serverSide("split", "alice") == "on"), details{Reason: "SPLIT", Variant: s.serverSide("split", "alice")}},
			{"Boolean", "regional", "false", "true", details{Reason: "STATIC", Variant: "on"}},
			{"Boolean", "listed", "false", "true", details{Reason: "TARGETING_MATCH", Variant: "on"}},
			{"String", "colour", `"none"`, `"#fc0"`, details{Reason: "TARGETING_MATCH", Variant: "gold"}},
			{"Object", "limits", "{}", `{"items":40,"ratio":0.5}`, details{Reason: "STATIC", Variant: "large"}},
			{"Number", "size", "0", "12", details{Reason: "STATIC", Variant: "big"}},
			{"Boolean", "gone", "true", "false", details{Reason: "DISABLED", Variant: "off"}},
			{"Object", "listing", `{"a":1}`, `{"a":1}`, details{Reason: "ERROR", ErrorCode: "GENERAL"}},
			{"Boolean", "hidden", "false", "false", details{Reason: "ERROR", ErrorCode: "FLAG_NOT_FOUND"}},
			{"Boolean", "colour", "true", "true", details{Reason: "ERROR", ErrorCode: "TYPE_MISMATCH"}},
		} {
			got := b.details(c.kind, c.flag, c.fallback)
			value, _ := json.Marshal(got.Value)
			got.Value, got.ErrorMessage = nil, ""
			if string(value) != c.value || got != c.want {
				t.Errorf("%s: %s %+v, want %s %+v", c.flag, value, got, c.value, c.want)
			}
		}
	})

	t.Run("another context", func(t *testing.T) {
		// The stream begins with an event, since something may have changed after the answer.
		s.eventually(10*time.Second, "the client does not ask again when its stream is open", func() bool { return len(b.seen("flagConfigEtag=")) == 1 })
		before := len(b.statuses())
		// The client keeps its tag: an answer by the definitions' tag alone would be 304.
		eval[any](b, `window.context({targetingKey: "alice", region: "US", plan: "gold"})`)
		if got := b.details("Boolean", "regional", "true"); got.Value != false || got.Reason != "DEFAULT" {
			t.Errorf("in another region: %+v", got)
		}
		asks := func(n int) {
			s.eventually(5*time.Second, "the page has not asked", func() bool { return len(b.statuses()) >= before+n })
		}
		asks(1)
		asked := b.seen("/ofrep/v1/evaluate/flags")[before:]
		if len(asked) != 1 || asked[0].status != 200 || asked[0].header["if-none-match"] == nil {
			t.Errorf("asked %+v, want one 200 with If-None-Match", asked)
		}
		// What decides nothing changes nothing.
		eval[any](b, `window.context({targetingKey: "alice", region: "US", plan: "gold", page: "/shoes"})`)
		asks(2)
		if got := b.statuses()[before:]; len(got) != 2 || got[1] != 304 {
			t.Errorf("statuses %v, want a 304 for what no flag reads", got)
		}
		if got := b.details("Boolean", "regional", "true"); got.Value != false {
			t.Errorf("after 304: %+v", got)
		}
		eval[any](b, `window.context({targetingKey: "bob", region: "RO"})`)
		if got := b.details("Boolean", "listed", "true"); got.Value != false || got.Reason != "DEFAULT" {
			t.Errorf("somebody else: %+v", got)
		}
	})

	t.Run("a trip", func(t *testing.T) {
		b.until(10*time.Second, "document.querySelector('#look').value", "on")
		b.streams(s, 1)
		var late []time.Duration // a machine that has stopped for a moment may spoil one of three
		for range 3 {
			for range 3 {
				if r := s.do("GET", s.site+"/shop", "", "X-User-ID", "carol"); r.status != 500 {
					t.Fatalf("the canary answers %d", r.status)
				}
			}
			tripped := time.Now()
			b.until(10*time.Second, "document.querySelector('#look').value", "off")
			took := time.Since(tripped)
			if took > 2*time.Second {
				late = append(late, took)
			}
			t.Logf("the page has changed %v after the trip", took.Round(time.Millisecond))
			if r := s.do("GET", s.site+"/shop", ""); r.body != "the old look" {
				t.Errorf("the site says %q", r.body)
			}
			if got := b.details("Boolean", "new_look", "true"); got.Reason != "DISABLED" {
				t.Errorf("%+v", got)
			}
			s.api("POST", "flags/new_look/reset", "{}")
			b.until(10*time.Second, "document.querySelector('#look').value", "on")
		}
		if len(late) > 1 {
			t.Errorf("of three trips the page was told of these too late: %s", late)
		}
	})

	t.Run("a reload", func(t *testing.T) {
		before := len(b.seen("/ofrep/v1/events"))
		s.write("Caddyfile", strings.Replace(s.read("Caddyfile"), "the old look", "the same look", 1))
		s.command("reload", "--config", s.dir+"/Caddyfile", "--address", strings.TrimPrefix(s.admin, "http://"))
		b.streams(s, before+1)
		s.api("POST", "flags/new_look/disable", "{}")
		b.until(10*time.Second, "document.querySelector('#look').value", "off")
	})

	t.Run("kill -9", func(t *testing.T) {
		s.kill()
		s.start()
		s.api("POST", "flags/new_look/reset", "{}")
		// The browser comes back by itself, and hears that it has missed something.
		b.until(20*time.Second, "document.querySelector('#look').value", "on")
	})
	if bad := b.hosts(); len(bad) != 1 {
		t.Errorf("the page has asked %v", bad)
	}
}

// By default the client shows what it has kept of a person, whatever else has changed
// in the context, until the answer is there: the tag must not hide that it is another.
func TestOpenFeatureWebSDKCache(t *testing.T) {
	s := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "", "NEW": "127.0.0.1:1"})
	b := open(t)
	b.visit(s, "context", `{"targetingKey": "alice", "region": "RO"}`)
	eval[any](b, `window.context({targetingKey: "alice", region: "US"})`)
	b.until(10*time.Second, `window.details("Boolean", "regional", true).value`, "false")
	// A page that is loaded again begins with what was kept, and has its stream all the same.
	b.visit(s, "context", `{"targetingKey": "alice", "region": "US"}`)
	if d := b.details("Boolean", "regional", "true"); d.Value != false {
		t.Errorf("kept: %+v", d)
	}
	b.streams(s, 2)
	s.api("POST", "flags/new_look/disable", "{}")
	b.until(10*time.Second, "document.querySelector('#look').value", "off")
}

// streams waits until the page has opened its n-th stream, and the server knows.
func (b *tab) streams(s *server, n int) {
	b.t.Helper()
	s.eventually(10*time.Second, fmt.Sprintf("the page has not opened stream %d", n), func() bool {
		seen := b.seen("/ofrep/v1/events")
		return len(seen) >= n && seen[n-1].status == 200
	})
}

func (s *server) read(name string) string {
	s.t.Helper()
	r, err := readFile(s.dir + "/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// serverSide is what the admin API says a person gets.
func (s *server) serverSide(flag, user string) string {
	s.t.Helper()
	out := s.api("POST", "evaluate", `{"flags": ["`+flag+`"], "context": {"user_id": "`+user+`"}}`)
	return out["decisions"].(map[string]any)[flag].(map[string]any)["variant"].(string)
}

// A client that is told to wait does.
func TestOpenFeatureWebSDKRetryAfter(t *testing.T) {
	s := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "rate_limit 2 1h", "NEW": "127.0.0.1:1"})
	b := open(t)
	b.visit(s, "poll", "100", "changeDetection", "polling")
	s.eventually(10*time.Second, "the client has not polled", func() bool { return len(b.statuses()) >= 3 })
	time.Sleep(700 * time.Millisecond) // seven polls of a client that does not heed it
	got := b.statuses()
	if len(got) != 3 || got[2] != 429 {
		t.Errorf("statuses %v, want one 429 and nothing after it", got)
	}
	if d := b.details("Boolean", "new_look", "false"); d.Value != true {
		t.Errorf("the flags are lost: %+v", d)
	}
}

// A page of another origin is served where it is listed, and only there.
func TestOpenFeatureWebSDKAcrossOrigins(t *testing.T) {
	page := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "", "NEW": "127.0.0.1:1"})
	listed := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "cors " + page.site, "NEW": "127.0.0.1:1"})
	closed := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "", "NEW": "127.0.0.1:1"})
	b := open(t)
	b.visit(page, "base", listed.site)
	if d := b.details("Boolean", "listed", "false"); d.Value != true {
		t.Errorf("%+v", d)
	}
	b.streams(listed, 1)
	listed.api("POST", "flags/new_look/disable", "{}")
	b.until(10*time.Second, "document.querySelector('#look').value", "off")

	other := open(t)
	other.do(chromedp.Navigate(page.site + "/?base=" + url.QueryEscape(closed.site)))
	other.until(10*time.Second, "(window.state || '').startsWith('failed')", "true")
}
