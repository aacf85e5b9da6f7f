package tests

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const tokenSecret = "correct horse battery staple, and sixty-four bytes of it, at least so."

// keys are made once.
var keys = sync.OnceValue(func() (out struct {
	rsa, other *rsa.PrivateKey
	ec         *ecdsa.PrivateKey
	ed         ed25519.PrivateKey
},
) {
	var errs [4]error
	out.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	out.other, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	out.ec, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, out.ed, errs[3] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return out
})

// sign makes a token of claims; key is what its algorithm needs.
func sign(t *testing.T, alg string, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// hs256 is sign with the shared secret.
func hs256(t *testing.T, claims jwt.MapClaims) string {
	return sign(t, "HS256", []byte(tokenSecret), "", claims)
}

func publicPEM(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

const tokenFlags = `{
	"alices": {"active": true, "users": ["alice", 7]},
	"premium": {"active": true, "account_types": ["premium"]},
	"beta": {"active": true, "beta_program": true},
	"staff": {"active": true, "rules": [{"when": "'staff' in groups", "serve": "on"}, {"when": "true", "serve": "off"}]},
	"tenant": {"active": true, "rules": [{"when": "tenant == 'acme'", "serve": "on"}, {"when": "true", "serve": "off"}]}
}`

// tokenSite has the jwt block JWT, and UP behind it.
const tokenSite = site + `
	feature_flags {
		context {
			user_id      jwt sub
			user_id      header X-User-ID
			account_type jwt app_metadata.plan
			beta_program jwt beta
			groups       jwt groups
			tenant       jwt https://example.com/tenant
		}
		jwt {
			JWT
		}
	}
	reverse_proxy UP
}
`

// told asks with headers and returns the flags that are on.
func on(t *testing.T, c *instance, headers ...string) string {
	t.Helper()
	r := c.get("/", headers...)
	if r.status != http.StatusOK {
		t.Errorf("status %d: %q", r.status, r.body)
		return ""
	}
	var out []string
	h := r.echoed(t).Header
	for _, flag := range []string{"Alices", "Premium", "Beta", "Staff", "Tenant"} {
		if h.Get("X-Feature-"+flag) == "on" {
			out = append(out, strings.ToLower(flag))
		}
	}
	return strings.Join(out, " ")
}

func TestTokenAlgorithms(t *testing.T) {
	k := keys()
	claims := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	up := host(echo(t, "app"))
	for _, test := range []struct {
		alg string
		key any
		pub crypto.PublicKey
	}{
		{"HS256", []byte(tokenSecret), nil}, {"HS384", []byte(tokenSecret), nil}, {"HS512", []byte(tokenSecret), nil},
		{"RS256", k.rsa, k.rsa.Public()}, {"RS512", k.rsa, k.rsa.Public()}, {"PS256", k.rsa, k.rsa.Public()},
		{"ES256", k.ec, k.ec.Public()}, {"EdDSA", k.ed, k.ed.Public()},
	} {
		t.Run(test.alg, func(t *testing.T) {
			t.Setenv("TOKEN_SECRET", tokenSecret)
			block := "secret {env.TOKEN_SECRET}"
			dir := t.TempDir()
			if test.pub != nil {
				(&instance{t: t, dir: dir}).write("key.pem", publicPEM(t, test.pub))
				block = "public_key " + dir + "/key.pem"
			}
			c := serve(t, strings.Replace(tokenSite, "JWT", block, 1), tokenFlags, map[string]string{"UP": up})
			good := sign(t, test.alg, test.key, "", claims)
			for range 2 { // verified, then remembered
				if got := on(t, c, "Authorization", "Bearer "+good); got != "alices" {
					t.Errorf("on: %q, want alices", got)
				}
			}
			if got := on(t, c, "Authorization", "bearer "+good); got != "alices" {
				t.Errorf("lower case: on: %q, want alices", got)
			}
			// One bit of the signature.
			parts := strings.Split(good, ".")
			signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
			signature[len(signature)/2] ^= 1
			parts[2] = base64.RawURLEncoding.EncodeToString(signature)
			if got := on(t, c, "Authorization", "Bearer "+strings.Join(parts, ".")); got != "" {
				t.Errorf("a changed signature: on: %q", got)
			}
		})
	}
}

func TestTokenClaims(t *testing.T) {
	c := serve(t, strings.Replace(tokenSite, "JWT", "secret \""+tokenSecret+"\"", 1), tokenFlags, map[string]string{"UP": host(echo(t, "app"))})
	tests := []struct {
		name   string
		claims jwt.MapClaims
		want   string
	}{
		{"subject", jwt.MapClaims{"sub": "alice"}, "alices"},
		{"a number", jwt.MapClaims{"sub": 7}, "alices"},
		{"a dotted path", jwt.MapClaims{"app_metadata": map[string]any{"plan": "premium"}}, "premium"},
		{"a name with a dot in it", jwt.MapClaims{"app_metadata.plan": "premium"}, "premium"},
		{"a path through no object", jwt.MapClaims{"app_metadata": "plan"}, ""},
		{"a name that is an address", jwt.MapClaims{"https://example.com/tenant": "acme"}, "tenant"},
		{"a boolean", jwt.MapClaims{"beta": true}, "beta"},
		{"another boolean", jwt.MapClaims{"beta": false}, ""},
		{"a list", jwt.MapClaims{"groups": []string{"a", "staff"}}, "staff"},
		{"all at once", jwt.MapClaims{"sub": "alice", "beta": true, "app_metadata": map[string]any{"plan": "premium"}}, "alices premium beta"},
		{"null", jwt.MapClaims{"sub": nil}, ""},
		{"none that we ask for", jwt.MapClaims{"name": "alice"}, ""},
		{"a placeholder", jwt.MapClaims{"sub": "{env.HOME}"}, ""},
	}
	for _, test := range tests {
		if got := on(t, c, "Authorization", "Bearer "+hs256(t, test.claims)); got != test.want {
			t.Errorf("%s: on: %q, want %q", test.name, got, test.want)
		}
	}
	// A token that gives no subject leaves it to the next source.
	if got := on(t, c, "Authorization", "Bearer "+hs256(t, jwt.MapClaims{"beta": true}), "X-User-ID", "alice"); got != "alices beta" {
		t.Errorf("no subject: on: %q, want alices beta", got)
	}
	if got := on(t, c, "Authorization", "Bearer "+hs256(t, jwt.MapClaims{"sub": "bob"}), "X-User-ID", "alice"); got != "" {
		t.Errorf("another subject: on: %q, want the token's word to count", got)
	}
}

// refused are headers whose token is not to be believed, against a site that
// wants issuer, audience and HS256 or RS256.
func refused(t *testing.T) map[string]string {
	k := keys()
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"sub": "alice", "iss": "https://issuer/", "aud": []string{"shop", "x"}, "exp": time.Now().Add(time.Hour).Unix()}
	}
	with := func(key string, value any) string {
		claims := good()
		if claims[key] = value; value == nil {
			delete(claims, key)
		}
		return "Bearer " + hs256(t, claims)
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, good()).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	whole := hs256(t, good())
	return map[string]string{
		"none":                       "Bearer " + none,
		"an algorithm not listed":    "Bearer " + sign(t, "HS512", []byte(tokenSecret), "", good()),
		"another secret":             "Bearer " + sign(t, "HS256", []byte("another secret, which is as long as it should be"), "", good()),
		"another key":                "Bearer " + sign(t, "RS256", k.other, "", good()),
		"the public key as a secret": "Bearer " + sign(t, "HS256", []byte(publicPEM(t, k.rsa.Public())), "", good()),
		"another issuer":             with("iss", "https://evil/"),
		"no issuer":                  with("iss", nil),
		"another audience":           with("aud", "bank"),
		"no audience":                with("aud", nil),
		"expired":                    with("exp", time.Now().Add(-time.Minute).Unix()),
		"expired in milliseconds":    with("exp", time.Now().Add(time.Hour).UnixMilli()),
		"not yet valid":              with("nbf", time.Now().Add(time.Hour).Unix()),
		"oversized":                  with("filler", strings.Repeat("x", 7_000)),
		"garbage":                    "Bearer garbage",
		"dots":                       "Bearer ..",
		"without a signature":        "Bearer " + whole[:strings.LastIndexByte(whole, '.')+1],
		"with something after it":    "Bearer " + whole + "x",
		"with a space in it":         "Bearer " + whole[:20] + " " + whole[20:],
		"placeholder":                "Bearer {env.TOKEN}",
		"encrypted":                  "Bearer a.b.c.d.e",
		"claims of somebody else":    "Bearer " + strings.Split(whole, ".")[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"alice","iss":"https://issuer/","aud":"shop"}`)) + "." + strings.Split(whole, ".")[2],
		"critical header nobody knows": "Bearer " + func() string {
			token := jwt.NewWithClaims(jwt.SigningMethodHS256, good())
			token.Header["crit"] = []string{"x"}
			text, _ := token.SignedString([]byte(tokenSecret))
			return text
		}(),
	}
}

// hits is an upstream that counts.
func hits(t *testing.T) (*httptest.Server, *atomic.Int64) {
	inner, n := echo(t, "app"), new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		inner.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s, n
}

const strictJWT = `secret "` + tokenSecret + `"
			public_key KEYFILE
			algorithms HS256 RS256
			issuer https://issuer/
			audience shop store
			cache 16
`

func TestTokenRefused(t *testing.T) {
	for _, then := range []string{"anonymous", "reject"} {
		t.Run(then, func(t *testing.T) {
			dir := t.TempDir()
			(&instance{t: t, dir: dir}).write("key.pem", publicPEM(t, keys().rsa.Public()))
			up, n := hits(t)
			c := serve(t, strings.Replace(tokenSite, "JWT", strictJWT+"on_invalid "+then, 1), tokenFlags, map[string]string{"UP": host(up), "KEYFILE": dir + "/key.pem"})

			claims := jwt.MapClaims{"sub": "alice", "iss": "https://issuer/", "aud": "store", "exp": time.Now().Add(time.Hour).Unix()}
			for _, good := range []string{hs256(t, claims), sign(t, "RS256", keys().rsa, "", claims)} {
				if got := on(t, c, "Authorization", "Bearer "+good); got != "alices" {
					t.Fatalf("a good token: on: %q, want alices", got)
				}
			}
			for name, header := range map[string]string{
				"nothing": "", "Basic": "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret")), "Bearer alone": "Bearer",
				"Digest": `Digest username="alice"`, "a token without Bearer": hs256(t, claims),
			} {
				if got := on(t, c, "Authorization", header, "X-User-ID", "alice"); got != "alices" {
					t.Errorf("%s: on: %q, want it to be no token at all, and the next source asked", name, got)
				}
			}
			for name, header := range refused(t) {
				before := n.Load()
				r := c.get("/", "Authorization", header)
				if then == "reject" {
					if r.status != http.StatusUnauthorized || r.header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` || n.Load() != before {
						t.Errorf("%s: status %d, WWW-Authenticate %q, %d more at the upstream; want 401, one and none", name, r.status, r.header.Get("WWW-Authenticate"), n.Load()-before)
					}
					continue
				}
				if r.status != http.StatusOK || n.Load() != before+1 {
					t.Errorf("%s: status %d, want it to go on", name, r.status)
				} else if got := r.echoed(t).Header; got.Get("X-Feature-Alices") != "off" || got.Get("Authorization") != header {
					t.Errorf("%s: told %q, want off, and the header passed on", name, got.Get("X-Feature-Alices"))
				}
			}
			if causes := c.metric(`caddy_feature_flags_tokens_refused_total{cause="signature"}`); causes == "" || causes == "0" {
				t.Errorf("metric of refused tokens is %q", causes)
			}
		})
	}
}

// Bad tokens, which anybody can send, are logged seldom and never themselves.
func TestTokensStayOutOfLogs(t *testing.T) {
	for _, then := range []string{"anonymous", "reject"} {
		t.Run(then, func(t *testing.T) {
			dir := t.TempDir()
			(&instance{t: t, dir: dir}).write("key.pem", publicPEM(t, keys().rsa.Public()))
			c := serve(t, strings.Replace(tokenSite, "JWT", strictJWT+"on_invalid "+then, 1), tokenFlags, map[string]string{"UP": host(echo(t, "app")), "KEYFILE": dir + "/key.pem"})
			c.text = strings.Replace(c.text, "format json\n\t}\n\tlog site", "format json\n\tlevel DEBUG\n\t}\n\tlog site", 1)
			if err := c.load(); err != nil {
				t.Fatal(err)
			}
			var sent []string
			for i := range 60 {
				token := sign(t, "HS256", []byte(fmt.Sprintf("guess number %d, which is long enough to be one", i)), "", jwt.MapClaims{"sub": "alice"})
				sent = append(sent, token)
				c.get("/", "Authorization", "Bearer "+token)
			}
			sent = append(sent, "not-even-a-token-but-secret-all-the-same")
			c.get("/", "Authorization", "Bearer "+sent[len(sent)-1])
			c.entries(61)
			all := c.file("caddy.log") + c.file("access.log")
			if n := strings.Count(all, "token not accepted"); n < 1 || n > 2 {
				t.Errorf("%d warnings about 61 bad tokens of two causes, want one a cause", n)
			}
			for _, token := range sent {
				for _, part := range strings.Split(token, ".")[max(0, strings.Count(token, ".")-1):] { // the head is the same for all
					if strings.Contains(all, part) {
						t.Fatalf("the log has %q of a token", part)
					}
				}
			}
			if strings.Contains(all, tokenSecret) {
				t.Error("the log has the secret")
			}
		})
	}
}

func TestTokenPlaces(t *testing.T) {
	token := hs256(t, jwt.MapClaims{"sub": "alice"})
	bad := "Bearer " + sign(t, "HS256", []byte("another secret, which is as long as it should be"), "", jwt.MapClaims{"sub": "alice"})
	c := serve(t, strings.Replace(tokenSite, "JWT", "secret \""+tokenSecret+"\"\nfrom header X-Token\nfrom cookie session\nfrom query token\n", 1), tokenFlags, map[string]string{"UP": host(echo(t, "app"))})
	tests := []struct {
		name, query string
		headers     []string
		want        string
	}{
		{"header of its own", "", []string{"X-Token", token}, "alices"},
		{"with Bearer", "", []string{"X-Token", "Bearer " + token}, "alices"},
		{"cookie", "", []string{"Cookie", "a=b; session=" + token}, "alices"},
		{"query", "?token=" + token, nil, "alices"},
		{"Authorization is not asked", "", []string{"Authorization", "Bearer " + token}, ""},
		{"the first one counts", "", []string{"X-Token", bad, "Cookie", "session=" + token}, ""},
		{"the second where the first is missing", "?token=" + strings.TrimPrefix(bad, "Bearer "), []string{"Cookie", "session=" + token}, "alices"},
	}
	for _, test := range tests {
		r := c.get("/"+test.query, test.headers...)
		if got := r.echoed(t).Header.Get("X-Feature-Alices"); got != map[bool]string{true: "on", false: "off"}[test.want != ""] {
			t.Errorf("%s: alices is %s, want on: %q", test.name, got, test.want)
		}
	}
}

// Leeway is given to clocks that differ, and not more.
func TestTokenLeeway(t *testing.T) {
	c := serve(t, strings.Replace(tokenSite, "JWT", "secret \""+tokenSecret+"\"\nleeway 1m\n", 1), tokenFlags, map[string]string{"UP": host(echo(t, "app"))})
	for past, want := range map[time.Duration]string{30 * time.Second: "alices", 90 * time.Second: ""} {
		token := hs256(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(-past).Unix()})
		if got := on(t, c, "Authorization", "Bearer "+token); got != want {
			t.Errorf("expired since %s: on: %q, want %q", past, got, want)
		}
	}
}
