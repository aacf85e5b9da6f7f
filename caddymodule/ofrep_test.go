package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// FuzzClientBody: whatever a client posts is a context or a refusal with a code, and a
// context never overrules what the site knows.
func FuzzClientBody(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"context": null}`, `{"context": {"targetingKey": "a", "user_id": 7}}`, `{"context": {"region": "X", "targetingKey": ""}}`,
		`{"context": []}`, `{"context": {"a": {"b": [1e400, -0, "\ud800"]}}}`, `{"context": {"targetingKey": true}}`, "\xff", `{"context": {"a": 1}, "context": 7}`,
	} {
		f.Add(seed)
	}
	o := &OFREP{MaxBody: 4096}
	f.Fuzz(func(t *testing.T, body string) {
		attributes, refused := o.body(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		if refused != nil {
			if refused.status < 400 || refused.status > 413 || refused.code != parseError && refused.code != invalidContext || refused.details == "" || attributes != nil {
				t.Errorf("%+v %v", refused, attributes)
			}
			return
		}
		var c evaluator.Context
		c.Set(evaluator.UserID, evaluator.String("known"))
		c.Set("region", evaluator.String("here"))
		fillIn(&c, attributes, nil)
		if c.TargetingKey() != "known" || c.Get("region").Text() != "here" {
			t.Errorf("the client says who it is: %v", c.Attributes())
		}
	})
}

func TestStreamTokens(t *testing.T) {
	s, err := newSigner(ofrepPurpose, "sixteen letters and more")
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newSigner("pin", "sixteen letters and more")
	now := time.Date(2026, 1, 31, 12, 34, 56, 0, time.UTC)
	token := func(s *signer, until time.Time) string {
		end := strconv.FormatInt(until.Unix(), 36)
		return end + "." + s.sign(end, "shop.example")
	}
	good := token(s, now.Add(20*time.Minute))
	for name, c := range map[string]struct {
		token, host string
		at          time.Time
		want        bool
	}{
		"good":                      {good, "shop.example", now, true},
		"at the end":                {good, "shop.example", now.Add(20 * time.Minute), false},
		"a moment before":           {good, "shop.example", now.Add(20*time.Minute - time.Second), true},
		"of another host":           {good, "evil.example", now, false},
		"for another purpose":       {token(other, now.Add(20*time.Minute)), "shop.example", now, false},
		"longer than any is told":   {token(s, now.Add(time.Hour)), "shop.example", now, false},
		"empty":                     {"", "shop.example", now, false},
		"negative":                  {"-1." + s.sign("-1", "shop.example"), "shop.example", now, false},
		"a number that is too long": {strings.Repeat("z", 14) + "." + s.sign(strings.Repeat("z", 14), "shop.example"), "shop.example", now, false},
	} {
		if got := mayStream(s, c.token, c.host, c.at); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for i := range good {
		for _, letter := range []byte("aZ0.-_") {
			if changed := good[:i] + string(letter) + good[i+1:]; changed != good && mayStream(s, changed, "shop.example", now) {
				t.Errorf("%s is believed", changed)
			}
		}
	}
	if mayStream(nil, good, "shop.example", now) {
		t.Error("believed without a key")
	}
}

func TestLimiter(t *testing.T) {
	l, err := newLimiter(&RateLimit{Requests: 2})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, c := range []struct {
		client netip.Addr
		after  time.Duration
		want   time.Duration
	}{
		{one, 0, 0},
		{one, 0, 0},
		{one, 0, 500 * time.Millisecond},
		{two, 0, 0},
		{one, 400 * time.Millisecond, 100 * time.Millisecond},
		{one, 500 * time.Millisecond, 0}, // what was refused cost nothing
		{one, 500 * time.Millisecond, 500 * time.Millisecond},
		{one, time.Hour, 0},
		{one, time.Hour, 0},
		{one, time.Hour, 500 * time.Millisecond},
	} {
		if got := l.wait(c.client, now.Add(c.after)); got != c.want && got.Round(time.Millisecond) != c.want {
			t.Errorf("request %d: %v, want %v", i+1, got, c.want)
		}
	}
	for i := range 3 * mostClients {
		l.wait(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if n := l.clients.Len(); n != mostClients {
		t.Errorf("%d clients are remembered", n)
	}
	if none, err := newLimiter(&RateLimit{}); none != nil || err != nil || none.wait(one, now) != 0 {
		t.Errorf("no limit: %v %v", none, err)
	}
}

func TestClientOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::", "[::ffff:192.0.2.7]:80": "192.0.2.7", "[fe80::1%eth0]:80": "fe80::", "nonsense": "invalid IP",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = address
		if got := clientOf(r).String(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// What clients are told has the tag of what it is made of.
func TestClientFlagsTags(t *testing.T) {
	view := func(text string) *clientFlags {
		doc, err := evaluator.Decode("f.json", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		program, err := evaluator.Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		return newClientFlags(bind(program, testEngine(t, "")), time.Now(), []byte("key"), "production", nil)
	}
	etag := func(c *clientFlags, codes []uint16, stream string) string {
		of := clientCodes{codes, c.sum(codes)}
		return of.etag(stream)
	}
	tags, revisions := map[string]string{}, map[string]string{}
	for _, text := range []string{
		`{"a": {"active": true, "client": true}}`, `{"a": {"active": true, "client": true}, "b": {"active": true}}`,
		`{"a": {"active": true, "client": true}, "b": {"active": true, "client": true}}`,
		`{"a": {"active": true, "client": true, "variants": {"x": {"weight": 100}}}}`,
		`{"a": {"active": true, "client": true, "variants": {"x": {"weight": 100, "value": 1}}}}`,
		`{"a": {"active": true, "client": true, "variants": {"x1": {"weight": 100}}}}`,
	} {
		c := view(text)
		codes := make([]uint16, len(c.flags))
		tag, revision := etag(c, codes, ""), c.revision
		if etag(c, codes, "/stream") == tag {
			t.Errorf("%s: the stream's address is not in the tag", text)
		}
		if again := view(text); etag(again, codes, "") != tag || again.revision != revision {
			t.Errorf("%s: another tag each time", text)
		}
		same := strings.Contains(text, `"b": {"active": true}}`)
		if before, there := tags[tag]; there != same {
			t.Errorf("%s and %s have one tag: %t", text, before, there)
		}
		if before, there := revisions[revision]; there != same {
			t.Errorf("%s and %s have one revision: %t", text, before, there)
		}
		tags[tag], revisions[revision] = text, text
	}
	big := view(`{"a": {"active": true, "client": true}}`)
	many := make([]uint16, 1000)
	was := etag(big, many, "")
	for i := range many {
		many[i] = 1
		if etag(big, many, "") == was {
			t.Fatalf("code %d is not in the tag", i)
		}
		many[i] = 0
	}
}

// BenchmarkClientFlags is what all flags of a client cost without HTTP.
func BenchmarkClientFlags(b *testing.B) {
	flags := map[string]any{}
	for i := range 350 {
		flags[fmt.Sprintf("flag_%03d", i)] = map[string]any{"active": true, "client": true, "regions": []string{"US", "RO"}, "percentage_rollout": i % 100}
	}
	text, _ := json.Marshal(flags)
	doc, _ := evaluator.Decode("f.json", text)
	program, err := evaluator.Compile(doc)
	if err != nil {
		b.Fatal(err)
	}
	r := bind(program, testEngine(b, ""))
	c := newClientFlags(r, time.Now(), []byte("key"), "production", nil)
	for name, users := range map[string]int{"seen": 1, "new": 1 << 40} {
		b.Run(name, func(b *testing.B) {
			var rq request
			for n := 0; b.Loop(); n++ {
				rq.ctx.Set(evaluator.UserID, evaluator.String(strconv.Itoa(n%users)))
				rq.ctx.Set(evaluator.Region, evaluator.String("RO"))
				rq.eval.Reset(r.Ruleset, &rq.ctx, time.Time{})
				size := 0
				of := c.decide(&rq)
				for k, code := range of.codes {
					size += len(c.answer(k, code).text)
				}
				if of.etag("") == "" || size < 350*50 {
					b.Fatal(size)
				}
			}
		})
	}
}

func TestCORSOrigins(t *testing.T) {
	for origin, ok := range map[string]bool{
		"*": true, "https://app.example": true, "http://localhost:5173": true, "https://[::1]:8443": true, "capacitor://localhost": true,
		"https://App.example": false, "https://*.example": false, "https://app.example/": false, "app.example": false, "": false,
		"https://app.example:443": false, "http://app.example:80": false, "https://bücher.example": false,
	} {
		if err := (origins{origin}).check(); (err == nil) != ok {
			t.Errorf("%q: %v", origin, err)
		}
	}
}
