package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// now is the time of every test that does not say otherwise.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var secret = []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

// pair is a private key of each sort, made once.
var (
	rsaPair     = sync.OnceValue(func() crypto.Signer { return newRSA(2048) })
	rsaOther    = sync.OnceValue(func() crypto.Signer { return newRSA(2048) })
	rsaShort    = sync.OnceValue(func() crypto.Signer { return newRSA(1024) })
	p256Pair    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P256()) })
	p384Pair    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P384()) })
	p521Pair    = sync.OnceValue(func() crypto.Signer { return newECDSA(elliptic.P521()) })
	ed25519Pair = sync.OnceValue(func() crypto.Signer {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return private
	})
)

func newRSA(bits int) crypto.Signer {
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return private
}

func newECDSA(curve elliptic.Curve) crypto.Signer {
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return private
}

// pairFor returns the private key to sign with, or the secret.
func pairFor(name string) any {
	switch name {
	case "HS256", "HS384", "HS512":
		return secret
	case "ES256":
		return p256Pair()
	case "ES384":
		return p384Pair()
	case "ES512":
		return p521Pair()
	case "EdDSA":
		return ed25519Pair()
	}
	return rsaPair()
}

func publicPEM(tb testing.TB, private crypto.Signer) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// jwk returns a public key as JSON.
func jwk(tb testing.TB, private crypto.Signer, kid, alg, use string) json.RawMessage {
	tb.Helper()
	raw, err := jose.JSONWebKey{Key: private.Public(), KeyID: kid, Algorithm: alg, Use: use}.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func jwks(tb testing.TB, keys ...json.RawMessage) []byte {
	tb.Helper()
	if keys == nil {
		keys = []json.RawMessage{}
	}
	raw, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// signText signs header and claims as they are written.
func signText(tb testing.TB, alg string, private any, head, claims string) string {
	tb.Helper()
	signed := encode(head) + "." + encode(claims)
	signature, err := jwt.GetSigningMethod(alg).Sign(signed, private)
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// sign signs claims with the key for alg. kid may be "".
func sign(tb testing.TB, alg, kid, claims string) string {
	tb.Helper()
	return signWith(tb, alg, pairFor(alg), kid, claims)
}

func signWith(tb testing.TB, alg string, private any, kid, claims string) string {
	tb.Helper()
	head := `{"alg":"` + alg + `","typ":"JWT"}`
	if kid != "" {
		head = `{"alg":"` + alg + `","typ":"JWT","kid":"` + kid + `"}`
	}
	return signText(tb, alg, private, head, claims)
}

func subject(claims map[string]any) string {
	value, _ := claims["sub"].(string)
	return value
}

func newSubject(tb testing.TB, cfg Config) *Verifier[string] {
	tb.Helper()
	v, err := New(cfg, subject)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// wantVerify checks the outcome and that an error is a bare sentinel, whose text is fixed.
func wantVerify(tb testing.TB, v *Verifier[string], at time.Time, raw, want string, wantErr error) {
	tb.Helper()
	got, err := v.Verify(at, raw)
	if err != wantErr || got != want {
		tb.Errorf("got %q, %v; want %q, %v", got, err, want, wantErr)
	}
}
