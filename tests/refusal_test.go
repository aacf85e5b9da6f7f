package tests

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

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
			if n := strings.Count(all, `"msg":"token not accepted"`); n < 1 || n > 2 {
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
