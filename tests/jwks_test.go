package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// keySet gives public keys as a JWKS; names and keys in turn.
func keySet(t *testing.T, pairs ...any) string {
	t.Helper()
	var set jose.JSONWebKeySet
	for i := 0; i+1 < len(pairs); i += 2 {
		set.Keys = append(set.Keys, jose.JSONWebKey{KeyID: pairs[i].(string), Key: pairs[i+1], Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// issuer serves a key set that the test may change, and counts.
type issuer struct {
	*httptest.Server
	set     atomic.Value // string
	fetches atomic.Int64
}

func newIssuer(t *testing.T, set string) *issuer {
	t.Helper()
	i := &issuer{}
	i.set.Store(set)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		fmt.Fprint(w, i.set.Load())
	}))
	t.Cleanup(i.Close)
	return i
}

// subject is a token for alice that no other is like.
func subject(t *testing.T, alg string, key any, kid string) string {
	t.Helper()
	return "Bearer " + sign(t, alg, key, kid, jwt.MapClaims{"sub": "alice", "jti": time.Now().UnixNano()})
}

func TestJWKS(t *testing.T) {
	k := keys()
	set := keySet(t, "r", k.rsa.Public(), "e", k.ec.Public(), "d", k.ed.Public())
	i := newIssuer(t, set)
	up := host(echo(t, "app"))
	for _, from := range []string{"url", "file"} {
		t.Run(from, func(t *testing.T) {
			dir := t.TempDir()
			(&instance{t: t, dir: dir}).write("jwks.json", set)
			address := map[string]string{"url": i.URL + "/jwks.json", "file": dir + "/jwks.json"}[from]
			c := serve(t, strings.Replace(tokenSite, "JWT", "jwks "+address, 1), tokenFlags, map[string]string{"UP": up})
			for kid, try := range map[string]struct {
				alg string
				key any
			}{"r": {"RS256", k.rsa}, "e": {"ES256", k.ec}, "d": {"EdDSA", k.ed}} {
				if got := on(t, c, "Authorization", subject(t, try.alg, try.key, kid)); got != "alices" {
					t.Errorf("%s by key %s: on: %q, want alices", try.alg, kid, got)
				}
			}
			if got := on(t, c, "Authorization", subject(t, "PS256", k.rsa, "r")); got != "alices" {
				t.Errorf("PS256 by key r: on: %q, want alices", got)
			}
			for name, header := range map[string]string{
				"another's key":         subject(t, "RS256", k.other, "r"),
				"a key of another kind": subject(t, "RS256", k.rsa, "e"),
				"no such key":           subject(t, "RS256", k.other, "x"),
				"HS256":                 subject(t, "HS256", []byte(publicPEM(t, k.rsa.Public())), "r"),
			} {
				if got := on(t, c, "Authorization", header); got != "" {
					t.Errorf("%s: on: %q, want none", name, got)
				}
			}
		})
	}
}

// Keys that are known go on working when the issuer is gone, over reloads too,
// and requests never wait for it.
func TestJWKSUnreachable(t *testing.T) {
	k := keys()
	i := newIssuer(t, keySet(t, "r", k.rsa.Public()))
	c := serve(t, strings.Replace(tokenSite, "JWT", "jwks "+i.URL+"\non_invalid reject", 1), tokenFlags, map[string]string{"UP": host(echo(t, "app"))})
	if got := on(t, c, "Authorization", subject(t, "RS256", k.rsa, "r")); got != "alices" {
		t.Fatalf("at first: on: %q, want alices", got)
	}
	i.Close()
	for range 3 {
		if got := on(t, c, "Authorization", subject(t, "RS256", k.rsa, "r")); got != "alices" {
			t.Errorf("the issuer is gone: on: %q, want alices", got)
		}
		c.text = strings.Replace(c.text, "grace_period 2s", "grace_period 2s\n\torder respond first", 1)
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		c.text = strings.Replace(c.text, "\n\torder respond first", "", 1)
		c.write("features.json", tokenFlags+"\n")
	}
	bad := strings.Replace(c.text, "reverse_proxy UP", "reverse_proxy UP\n\tno_such_directive", 1)
	good := c.text
	c.text = bad
	if c.load() == nil {
		t.Fatal("a bad config was taken")
	}
	c.text = good
	if got := on(t, c, "Authorization", subject(t, "RS256", k.rsa, "r")); got != "alices" {
		t.Errorf("after a config that was refused: on: %q, want alices", got)
	}
	// An edit of the block itself keeps the keys too.
	c.text = strings.Replace(c.text, "on_invalid reject", "on_invalid reject\nleeway 7s", 1)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if got := on(t, c, "Authorization", subject(t, "RS256", k.rsa, "r")); got != "alices" {
		t.Errorf("after an edit of the jwt block: on: %q, want alices", got)
	}
	begun := time.Now()
	if r := c.get("/", "Authorization", subject(t, "RS256", k.other, "x")); r.status != http.StatusUnauthorized || time.Since(begun) > time.Second {
		t.Errorf("an unknown key: status %d after %s, want 401 at once", r.status, time.Since(begun))
	}
}

// An issuer that is down at the start keeps nobody from starting.
func TestJWKSDownAtStart(t *testing.T) {
	dead := freeAddress(t)
	begun := time.Now()
	c := serve(t, strings.Replace(tokenSite, "JWT", "jwks http://"+dead, 1), tokenFlags, map[string]string{"UP": host(echo(t, "app"))})
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("started after %s", took)
	}
	if got := on(t, c, "Authorization", subject(t, "RS256", keys().rsa, "r")); got != "" {
		t.Errorf("on: %q, want none", got)
	}
}

// Fifty keys that nobody knows cause one fetch; a new key is found by it.
func TestJWKSUnknownKeys(t *testing.T) {
	k := keys()
	i := newIssuer(t, keySet(t, "r", k.rsa.Public()))
	c := serve(t, strings.Replace(tokenSite, "JWT", "jwks "+i.URL, 1), tokenFlags, map[string]string{"UP": host(echo(t, "app"))})
	if n := i.fetches.Load(); n != 1 {
		t.Fatalf("%d fetches at start, want 1", n)
	}
	var tokens []string // made beforehand: all of it must be within ten seconds
	for n := range 100 {
		tokens = append(tokens, subject(t, "RS256", k.other, fmt.Sprint("unknown-", n)))
	}
	i.set.Store(keySet(t, "r", k.rsa.Public(), "new", k.ec.Public()))
	for _, token := range tokens[:50] {
		if got := on(t, c, "Authorization", token); got != "" {
			t.Errorf("on: %q, want none", got)
		}
	}
	eventually(t, 5*time.Second, "the new key works", func() bool {
		return on(t, c, "Authorization", subject(t, "ES256", k.ec, "new")) == "alices"
	})
	for _, token := range tokens[50:] {
		on(t, c, "Authorization", token)
	}
	if n := i.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2: one at start and one for all the unknown keys", n)
	}
}
