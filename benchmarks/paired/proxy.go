package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" // for -profile
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/golang-jwt/jwt/v5"

	_ "github.com/seed-6adbc061/caddy-feature-flags"
)

const proxyEnv = "PAIRED_PROXY_ORIGIN"

const conditions = `"active": true, "regions": ["US", "CA", "RO"], "account_types": ["premium", "enterprise"], "beta_program": true, "percentage_rollout": 10`

// features: one plain, one with thresholds, then a hundred; or a thousand to see
// what they weigh.
func features(memory string) string {
	var b strings.Builder
	if memory != "" {
		b.WriteString("{")
		for i := range 1000 {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, `"flag_%04d": {%s, "metadata": {"description": "one of a thousand", "owner": "shop"}}`, i, conditions)
		}
		b.WriteString("}")
		return b.String()
	}
	fmt.Fprintf(&b, `{"one": {%s}, "guarded": {%s, "error_threshold": 1000000, "performance_baseline": 1, "performance_threshold": 1000000, "traffic_drop_threshold": 50}`, conditions, conditions)
	for i := range 100 {
		fmt.Fprintf(&b, `, "flag_%03d": {"active": %t, "regions": ["US", "CA", "RO"], "percentage_rollout": %d}`, i, i%10 != 9, i)
	}
	b.WriteString("}")
	return b.String()
}

func names(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("flag_%03d", i))
	}
	return strings.Join(all, " ")
}

// runProxy is the child: Caddy with a site a target, on a core of its own.
func runProxy() error {
	pin(0)
	runtime.GOMAXPROCS(1)
	origin := os.Getenv(proxyEnv)
	dir, err := os.MkdirTemp("", "paired-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		os.Setenv(name, dir)
	}
	file := filepath.Join(dir, "features.json")
	if err := os.WriteFile(file, []byte(features(os.Getenv(memoryEnv))), 0o600); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	pemFile := filepath.Join(dir, "public.pem")
	if err := os.WriteFile(pemFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		return err
	}

	sites := measured(origin, key)
	if users := os.Getenv(memoryEnv); users != "" {
		sites = []site{{name: "memory", config: memoryConfig(users, origin), heads: heads("X-User-ID: user-%d\r\nX-Region: RO\r\n")}}
	}
	ports, err := freePorts(len(sites))
	if err != nil {
		return err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "{\nadmin off\nauto_https off\npersist_config off\nlog {\nlevel ERROR\n}\nfeature_flags {\nsource file %s\nstate local %s\n}\n}\n", file, filepath.Join(dir, "state"))
	for i, s := range sites {
		fmt.Fprintf(&config, "http://:%d {\nbind 127.0.0.1\n%s}\n", ports[i], strings.ReplaceAll(s.config, "PUBLIC", pemFile))
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config.String()), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	if err := caddy.Load(adapted, true); err != nil {
		return err
	}
	hello := greeting{}
	for i, s := range sites {
		hello.Targets = append(hello.Targets, &target{Name: s.name, Plain: s.plain, Figure: s.figure, Heads: s.heads, Address: fmt.Sprintf("127.0.0.1:%d", ports[i])})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	hello.Control = l.Addr().String()
	if err := json.NewEncoder(os.Stdout).Encode(hello); err != nil {
		return err
	}
	http.HandleFunc("/mallocs", func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(w, m.Mallocs)
	})
	http.HandleFunc("/collect", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(w, m.HeapAlloc)
	})
	return http.Serve(l, nil)
}

const secret = "a-secret-of-thirty-two-bytes-or-more"

// site is a target with the directives that make it.
type site struct {
	name, plain, figure, config string
	heads                       []string
}

// measured are the sites whose requests are compared.
func measured(origin string, key *rsa.PrivateKey) []site {
	const context = "context {\nuser_id header X-User-ID\nregion header X-Region\naccount_type header X-Account\nbeta_program header X-Beta\n}\n"
	const claims = "context {\nuser_id jwt sub\nregion jwt region\naccount_type jwt app_metadata.plan\nbeta_program jwt beta\n}\n"
	proxy := "reverse_proxy " + origin + "\n"
	route := func(flag string) string {
		_, port, _ := net.SplitHostPort(origin)
		return fmt.Sprintf("reverse_proxy %s localhost:%s {\nlb_policy feature %s {\non %s\noff localhost:%s\n}\n}\n", origin, port, flag, origin, port)
	}
	people := heads("X-User-ID: user-%d\r\nX-Region: RO\r\nX-Account: premium\r\nX-Beta: true\r\n")
	hs := func(n int) []string { return tokens(n, jwt.SigningMethodHS256, []byte(secret)) }
	rs := func(n int) []string { return tokens(n, jwt.SigningMethodRS256, key) }
	hs1, hsN, rs1, rsN := hs(1), hs(400), rs(1), rs(400)
	withJWT := func(how string) string {
		return "feature_flags {\n" + claims + "jwt {\n" + how + "}\nflags one\n}\n" + proxy
	}
	const bySecret, byKey = "secret " + secret + "\n", "public_key PUBLIC\n"
	return []site{
		{"plain", "", "", proxy, people},
		{"plain, HS256 token", "", "", proxy, hsN},
		{"plain, RS256 token", "", "", proxy, rsN},
		{"one flag", "plain", "1.035", "feature_flags {\n" + context + "flags one\n}\n" + route("one"), people},
		{"one flag, thresholds", "plain", "1.05", "feature_flags {\n" + context + "flags guarded\n}\n" + route("guarded"), people},
		{"one flag, feature_route", "plain", "", "feature_flags {\n" + context + "flags one\n}\nfeature_route one {\non {\n" + proxy + "}\noff {\n" + proxy + "}\n}\n", people},
		{"10 flags, list", "plain", "1.04", "feature_flags {\n" + context + "flags " + names(10) + "\nheaders list X-Features\n}\n" + proxy, people},
		{"10 flags, on_only", "plain", "1.04", "feature_flags {\n" + context + "flags " + names(10) + "\nheaders X-Feature- on_only\n}\n" + proxy, people},
		{"10 flags, one header each", "plain", "1.17", "feature_flags {\n" + context + "flags " + names(10) + "\n}\n" + proxy, people},
		{"100 flags, list", "plain", "1.06", "feature_flags {\n" + context + "flags " + names(100) + "\nheaders list X-Features\n}\n" + proxy, people},
		{"HS256, seen", "plain, HS256 token", "1.08", withJWT(bySecret), hs1},
		{"HS256, new", "plain, HS256 token", "1.20", withJWT(bySecret + "cache 1\n"), hsN},
		{"RS256, seen", "plain, RS256 token", "1.09", withJWT(byKey), rs1},
		{"RS256, new", "plain, RS256 token", "1.75", withJWT(byKey + "cache 1\n"), rsN},
	}
}

// freePorts finds n ports that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// heads gives a thousand users.
func heads(format string) []string {
	out := make([]string, 1000)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return out
}

func tokens(n int, method jwt.SigningMethod, key any) []string {
	out := make([]string, n)
	for i := range out {
		t := jwt.NewWithClaims(method, jwt.MapClaims{
			"sub": fmt.Sprintf("user-%d", i), "region": "RO", "beta": true, "email": "someone@shop.example",
			"app_metadata": map[string]any{"plan": "premium"}, "scope": "read write",
			"iat": time.Now().Unix(), "exp": time.Now().Add(24 * time.Hour).Unix(),
		})
		text, err := t.SignedString(key)
		if err != nil {
			panic(err)
		}
		out[i] = "Authorization: Bearer " + text + "\r\n"
	}
	return out
}
