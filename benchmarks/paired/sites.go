package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// site is a target: what it serves and what it is asked.
type site struct {
	name   string
	plain  string // the target it is compared with; "" is one to compare with
	figure string // to reach
	apart  bool   // measured in a process of its own, with plain: it would empty the caches of others

	config   string // its directives; DIR stands for the child's directory
	features string // the features file that all sites of a process share; "" where it is not needed
	asks     asks
	tokens   int // that take turns
}

// asks is how requests say who asks.
type asks int

const (
	byHeaders asks = iota // a thousand users
	byHS256               // tokens
	byRS256
	byUserAndRegion
	byBody       // a thousand users of an OpenFeature client
	byBodyOfMany // more users than are remembered
)

// measured are the sites whose requests are compared.
func measured(origin string) []site {
	const context = "context {\nuser_id header X-User-ID\nregion header X-Region\naccount_type header X-Account\nbeta_program header X-Beta\n}\n"
	const claims = "context {\nuser_id jwt sub\nregion jwt region\naccount_type jwt app_metadata.plan\nbeta_program jwt beta\n}\n"
	_, port, _ := net.SplitHostPort(origin)
	proxy := "reverse_proxy " + origin + "\n"
	split := "reverse_proxy " + origin + " localhost:" + port + " {\nlb_policy %s\n}\n"
	policy := func(flag string) string {
		return fmt.Sprintf(split, fmt.Sprintf("feature %s {\non %s\noff localhost:%s\n}", flag, origin, port))
	}
	flags := func(which, headers, then string) string {
		return "feature_flags {\n" + context + "flags " + which + "\n" + headers + "\n}\n" + then
	}
	token := func(how string) string {
		return "feature_flags {\n" + claims + "jwt {\n" + how + "}\nflags one\n}\n" + proxy
	}
	const conditions = `"active": true, "regions": ["US", "CA", "RO"], "account_types": ["premium", "enterprise"], "beta_program": true, "percentage_rollout": 10`
	var b strings.Builder
	fmt.Fprintf(&b, `{"one": {%[1]s, "guard": false}, "guarded": {%[1]s}, "watched": {%[1]s, "guard": false, "error_threshold": 1000000, "performance_baseline": 1, "performance_threshold": 1000000, "traffic_drop_threshold": 50}`, conditions)
	for i := range 100 {
		fmt.Fprintf(&b, `, "flag_%03d": {"active": %t, "regions": ["US", "CA", "RO"], "percentage_rollout": %d}`, i, i%10 != 9, i)
		fmt.Fprintf(&b, `, "free_%03d": {"active": %t, "regions": ["US", "CA", "RO"], "percentage_rollout": %d, "guard": false}`, i, i%10 != 9, i)
	}
	features := b.String() + "}"
	b.Reset()
	for i := range 350 {
		fmt.Fprintf(&b, `, "client_%03d": {"active": %t, "client": true, "regions": ["US", "CA", "RO"], "percentage_rollout": %d}`, i, i%10 != 9, i%100)
	}
	seen := "{" + b.String()[1:] + "}"
	const ofrep = "feature_flags {\ncontext {\nregion header X-Region\n}\nheaders list X-Features\n}\nfeature_flags_ofrep\n"
	const bySecret, byKey = "secret " + secret + "\n", "public_key DIR/public.pem\n"
	return []site{
		{name: "plain", config: proxy},
		{name: "plain, HS256 token", config: proxy, asks: byHS256, tokens: 400},
		{name: "plain, RS256 token", config: proxy, asks: byRS256, tokens: 400},
		{name: "plain again", plain: "plain", figure: "1.000", config: proxy},
		{name: "floor of one flag", plain: "plain", config: "floor on\n" + proxy},
		{name: "floor of 100 flags, list", plain: "plain", config: "floor " + strings.Repeat("x", 1150) + "\n" + proxy},
		{name: "one flag", plain: "plain", figure: "1.035", config: flags("one", "", policy("one")), features: features},
		{name: "one flag, guard", plain: "plain", figure: "1.05", config: flags("guarded", "", policy("guarded")), features: features},
		{name: "one flag, thresholds", plain: "plain", figure: "1.05", config: flags("watched", "", policy("watched")), features: features},
		{name: "one flag, feature_route", plain: "plain", config: flags("one", "", "feature_route one {\non {\n"+proxy+"}\noff {\n"+proxy+"}\n}\n"), features: features},
		{name: "feature_route, fallback", plain: "one flag, feature_route", config: flags("one", "", "feature_route one {\non {\n"+proxy+"}\noff {\n"+proxy+"}\nfallback\n}\n"), features: features},
		{name: "feature_route, pin", plain: "one flag, feature_route", config: flags("one", "", "feature_route one {\non {\n"+proxy+"}\noff {\n"+proxy+"}\npin 10m\n}\n"), features: features},
		{name: "10 flags, list", plain: "plain", figure: "1.04", config: flags(names(10), "headers list X-Features", proxy), features: features},
		{name: "10 flags, on_only", plain: "plain", figure: "1.04", config: flags(names(10), "headers X-Feature- on_only", proxy), features: features},
		{name: "10 flags, one header each", plain: "plain", figure: "1.17", config: flags(names(10), "", proxy), features: features},
		{name: "100 flags, list", plain: "plain", figure: "1.06", config: flags(names(100), "headers list X-Features", proxy), features: features},
		{name: "100 flags, list, no guards", plain: "plain", config: flags(strings.ReplaceAll(names(100), "flag_", "free_"), "headers list X-Features", proxy), features: features},
		{name: "10 flags, list, propagate", plain: "10 flags, list", config: flags(names(10), "headers list X-Features\npropagate {\nkey "+secret+"\n}", proxy), features: features},
		{name: "HS256, seen", plain: "plain, HS256 token", figure: "1.08", config: token(bySecret), features: features, asks: byHS256, tokens: 1},
		{name: "HS256, new", plain: "plain, HS256 token", figure: "1.20", config: token(bySecret + "cache 1\n"), features: features, asks: byHS256, tokens: 400},
		{name: "RS256, seen", plain: "plain, RS256 token", figure: "1.09", config: token(byKey), features: features, asks: byRS256, tokens: 1},
		{name: "RS256, new", plain: "plain, RS256 token", figure: "1.75", config: token(byKey + "cache 1\n"), features: features, asks: byRS256, tokens: 400},
		{name: "respond", config: "respond hello\n"},
		{name: "respond, as long", plain: "respond", config: "header Content-Length 25000\nrespond " + strings.Repeat("x", 25_000) + "\n", asks: byBody}, // what the bytes alone cost
		{name: "OFREP, 350 flags, seen", plain: "respond", figure: "2.5", config: ofrep, features: seen, asks: byBody},
		{name: "OFREP, 350 flags, new", plain: "respond", apart: true, config: ofrep, features: seen, asks: byBodyOfMany},
	}
}

// mirrored are the sites whose latency is compared: all requests go to off, and a
// twentieth of them to the canary, too.
func mirrored(origin string) []site {
	proxy := "reverse_proxy " + origin + "\n"
	route := func(on, mirror string) string {
		return "feature_flags\nfeature_route none {\non {\n" + on + proxy + "}\noff {\n" + proxy + "}\n" + mirror + "}\n"
	}
	const features = `{"none": {"active": true, "percentage_rollout": 0}}`
	return []site{
		{name: "no mirror", config: route("", ""), features: features},
		{name: "no mirror again", plain: "no mirror", config: route("", ""), features: features},
		{name: "mirror 5%", plain: "no mirror", figure: "1.05", config: route("", "mirror 5%\n"), features: features},
		{name: "mirror 5%, which hangs", plain: "no mirror", figure: "1.00", config: route("rewrite * "+hangs+"\n", "mirror 5%\n"), features: features},
	}
}

// weighed are the sites whose memory is compared.
func weighed(origin string) []site {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `, "flag_%04d": {"active": true, "regions": ["US", "CA", "RO"], "account_types": ["premium", "enterprise"], "beta_program": true, "percentage_rollout": 10, "metadata": {"description": "one of a thousand", "owner": "shop"}}`, i)
	}
	proxy := "reverse_proxy " + origin + "\n"
	return []site{
		{name: "memory, plain", config: proxy, asks: byUserAndRegion},
		{
			name: "memory, flags", asks: byUserAndRegion, features: "{" + b.String()[1:] + "}",
			config: "feature_flags {\ncontext {\nuser_id header X-User-ID\nregion header X-Region\n}\nheaders list X-Features\n}\n" + proxy,
		},
	}
}

func names(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("flag_%03d", i))
	}
	return strings.Join(all, " ")
}

const secret = "a-secret-of-thirty-two-bytes-or-more"

// requests gives the requests that are made in turn, and leaves the public key of
// tokens in dir.
func (s site) requests(dir string) ([]string, error) {
	var lines []string
	var err error
	switch s.asks {
	case byHS256:
		lines, err = tokens(s.tokens, jwt.SigningMethodHS256, []byte(secret))
	case byRS256:
		var key *rsa.PrivateKey
		if key, err = rsaKey(); err == nil {
			err = writePublicKey(filepath.Join(dir, "public.pem"), key)
		}
		if err == nil {
			lines, err = tokens(s.tokens, jwt.SigningMethodRS256, key)
		}
	case byUserAndRegion:
		lines = users(0)
	case byBody:
		return bodies(1000), nil
	case byBodyOfMany:
		return bodies(10_000), nil
	default:
		for i := range 1000 {
			lines = append(lines, fmt.Sprintf("X-User-ID: user-%d\r\nX-Region: RO\r\nX-Account: premium\r\nX-Beta: true\r\n", i))
		}
	}
	return gets(lines), err
}

// gets makes requests of the header lines that tell them apart.
func gets(lines []string) []string {
	out := make([]string, len(lines))
	for i := range lines {
		out[i] = "GET /shop?item=7 HTTP/1.1\r\n" + client + lines[i] + "\r\n"
	}
	return out
}

// client is what all requests say.
const client = "Host: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0\r\nAccept: */*\r\n"

// bodies gives requests for all flags, of so many users.
func bodies(n int) []string {
	out := make([]string, n)
	for i := range out {
		body := fmt.Sprintf(`{"context":{"targetingKey":"user-%d","plan":"premium","app":"2.14.1"}}`, i)
		out[i] = fmt.Sprintf("POST /ofrep/v1/evaluate/flags HTTP/1.1\r\n%sX-Region: RO\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", client, len(body), body)
	}
	return out
}

func writePublicKey(path string, key *rsa.PrivateKey) error {
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600)
}

// rsaKey is the one of all sites of the process.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// users gives the lines of a thousand users.
func users(from int) []string {
	out := make([]string, 1000)
	for i := range out {
		out[i] = fmt.Sprintf("X-User-ID: user-%d\r\nX-Region: RO\r\n", from+i)
	}
	return out
}

func tokens(n int, method jwt.SigningMethod, key any) ([]string, error) {
	out := make([]string, n)
	for i := range out {
		t := jwt.NewWithClaims(method, jwt.MapClaims{
			"sub": fmt.Sprintf("user-%d", i), "region": "RO", "beta": true, "email": "someone@shop.example",
			"app_metadata": map[string]any{"plan": "premium"}, "scope": "read write",
			"iat": time.Now().Unix(), "exp": time.Now().Add(24 * time.Hour).Unix(),
		})
		text, err := t.SignedString(key)
		if err != nil {
			return nil, err
		}
		out[i] = "Authorization: Bearer " + text + "\r\n"
	}
	return out, nil
}
