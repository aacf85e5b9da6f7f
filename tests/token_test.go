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
	"net/http"
	"strings"
	"sync"
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
		{"HS256", []byte(tokenSecret), nil},
		{"HS384", []byte(tokenSecret), nil},
		{"HS512", []byte(tokenSecret), nil},
		{"RS256", k.rsa, k.rsa.Public()},
		{"RS512", k.rsa, k.rsa.Public()},
		{"PS256", k.rsa, k.rsa.Public()},
		{"ES256", k.ec, k.ec.Public()},
		{"EdDSA", k.ed, k.ed.Public()},
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
