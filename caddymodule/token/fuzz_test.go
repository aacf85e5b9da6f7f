package token

import (
	"strings"
	"testing"
	"time"
)

// FuzzVerify: no panic, and success for the very tokens that the test signed, to the byte.
func FuzzVerify(f *testing.F) {
	v := newSubject(f, allKeys(f))
	signed := make(map[string]string)
	for _, name := range algorithmNames() {
		raw := sign(f, name, "", `{"sub":"`+name+`","exp":1999999999,"aud":["a"]}`)
		signed[raw] = name
		f.Add(raw)
		f.Add(strings.Replace(raw, ".", "\n.", 1))
		f.Add(raw[:len(raw)-1])
		f.Add(signWith(f, "HS256", publicPEM(f, p256Pair()), "kid", `{"sub":"eve"}`))
	}
	for _, seed := range []string{
		"", ".", "..", "....", "a.b.c", encode(`{"alg":"none"}`) + "." + encode(`{}`) + ".",
		encode(`{"alg":"HS256","crit":["x"]}`) + ".e30.e30", encode(`{"alg":"ES256","kid":"`+strings.Repeat("k", 99)+`"}`) + ".e30." + strings.Repeat("A", 86),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := v.Verify(now, raw)
		if want, ok := signed[raw]; ok != (err == nil) || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
		if err != nil && (Cause(err) == "other" || Cause(err) == "") {
			t.Errorf("no cause for %v", err)
		}
	})
}

// FuzzClaims: claims that an issuer signed, in any shape, neither panic nor pass when they say that they are expired.
func FuzzClaims(f *testing.F) {
	cfg := Config{Secret: secret, Issuer: "i", Audience: []string{"a"}, RequireExpiry: true, CacheSize: -1}
	v, err := New(cfg, func(claims map[string]any) map[string]any { return claims })
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"iss":"i","aud":"a","exp":1999999999}`, `{"iss":"i","aud":["a"],"exp":2e9,"nbf":0.5}`,
		`{"exp":-1e308}`, `{"exp":1e-999}`, `[]`, `{"iss":"i","aud":["a"],"exp":253402300799.999999}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, document string) {
		claims, err := v.Verify(now, sign(t, "HS256", "", document))
		if err != nil {
			return
		}
		end, ok, err := date(claims, "exp")
		if err != nil || !ok || !now.Before(end) || end.After(time.Unix(lastSecond+1, 0)) || claims["iss"] != "i" {
			t.Errorf("%q passed", document)
		}
	})
}

// FuzzParseJWKS: no panic, and no key that golang-jwt must not be given.
func FuzzParseJWKS(f *testing.F) {
	f.Add(jwks(f, jwk(f, rsaPair(), "r", "RS256", "sig"), jwk(f, p256Pair(), "e", "", ""), jwk(f, ed25519Pair(), "", "EdDSA", "")))
	f.Add(jwks(f, jwk(f, p384Pair(), "", "", ""), jwk(f, p521Pair(), "", "", ""), jwk(f, rsaShort(), "", "", "")))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"},{"kty":"RSA","n":"AQ","e":"AQAB"},null,1,{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, _, err := parseJWKS(body)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys and %v", len(keys), err)
		}
		for _, k := range keys {
			if k.kind == kindSecret || k.kind == kindNone || (k.kind == kindRSA && k.bits < minRSABits) {
				t.Errorf("key of kind %s with %d bits", k.kind, k.bits)
			}
		}
	})
}
