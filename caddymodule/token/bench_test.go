package token

import (
	"fmt"
	"testing"
)

// claimsOf returns claims such as an identity provider signs, for a token of some 580 to 870 bytes.
func claimsOf(b *testing.B) string {
	b.Helper()
	return fmt.Sprintf(`{"iss":"https://issuer.example/","sub":"auth0|65f1c0ffee0123456789abcd","aud":["shop","https://issuer.example/userinfo"],`+
		`"iat":%d,"exp":%d,"azp":"3Kx9QmZbN2","scope":"openid profile email","permissions":["read:cart","write:cart"],`+
		`"app_metadata":{"plan":"pro","seats":25},"beta":true}`, now.Unix()-60, now.Unix()+3600)
}

func benchConfig(b *testing.B, alg string) Config {
	b.Helper()
	cfg := Config{Issuer: "https://issuer.example/", Audience: []string{"shop"}, Algorithms: []string{alg}}
	if alg == "HS256" {
		cfg.Secret = secret
		return cfg
	}
	all := allKeys(b)
	cfg.PublicKeys = all.PublicKeys
	return cfg
}

type user struct {
	id   string
	plan string
}

func userOf(claims map[string]any) user {
	id, _ := claims["sub"].(string)
	plan, _ := Lookup(claims, "app_metadata.plan")
	text, _ := plan.(string)
	return user{id, text}
}

func BenchmarkHit(b *testing.B) {
	v, err := New(benchConfig(b, "HS256"), userOf)
	if err != nil {
		b.Fatal(err)
	}
	raw := sign(b, "HS256", "", claimsOf(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(now, raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHitParallel(b *testing.B) {
	v, err := New(benchConfig(b, "HS256"), userOf)
	if err != nil {
		b.Fatal(err)
	}
	raw := sign(b, "HS256", "", claimsOf(b))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := v.Verify(now, raw); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkNew(b *testing.B) {
	for _, alg := range []string{"HS256", "RS256", "PS256", "ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			cfg := benchConfig(b, alg)
			cfg.CacheSize = 1 // so that of two tokens in turn none is ever found, and each is put in
			v, err := New(cfg, userOf)
			if err != nil {
				b.Fatal(err)
			}
			raw := [2]string{sign(b, alg, "", claimsOf(b)), sign(b, alg, "any", claimsOf(b))}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := v.Verify(now, raw[i%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBad(b *testing.B) {
	v, err := New(benchConfig(b, "HS256"), userOf)
	if err != nil {
		b.Fatal(err)
	}
	raw := signWith(b, "HS256", []byte("another"), "", claimsOf(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(now, raw); err != ErrSignature {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	claims := map[string]any{"app_metadata": map[string]any{"plan": "pro"}}
	for b.Loop() {
		Lookup(claims, "app_metadata.plan")
	}
}
