package token

import (
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestParseJWKS(t *testing.T) {
	good := jwk(t, rsaPair(), "r1", "RS256", "sig")
	edit := func(pairs ...string) json.RawMessage {
		return json.RawMessage(strings.NewReplacer(pairs...).Replace(string(good)))
	}
	private, err := jose.JSONWebKey{Key: rsaPair(), KeyID: "p"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	evenExponent, err := jose.JSONWebKey{Key: &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 4}}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		key  json.RawMessage
		want string // the reason for which it is skipped
	}{
		{"good", good, ""},
		{"P-256", jwk(t, p256Pair(), "e1", "ES256", ""), ""},
		{"Ed25519", jwk(t, ed25519Pair(), "", "", ""), ""},
		{"nulls", edit(`"alg":"RS256"`, `"alg":null,"d":null,"k":null,"key_ops":null`), ""},
		{"key_ops with verify", edit(`"use":"sig"`, `"key_ops":["verify"]`), ""},
		{"key_ops without", edit(`"use":"sig"`, `"key_ops":["encrypt"]`), `kid "r1": key_ops has no "verify"`},
		{"use enc", edit(`"use":"sig"`, `"use":"enc"`), `kid "r1": use is "enc", want "sig"`},
		{"alg of encryption", edit("RS256", "RSA-OAEP"), `kid "r1": alg "RSA-OAEP" is not a signature algorithm that is supported`},
		{"alg none", edit("RS256", "none"), `kid "r1": alg "none" is not a signature algorithm that is supported`},
		{"alg of another kind", edit("RS256", "HS256"), `kid "r1": alg HS256 does not fit the key, which is RSA`},
		{"alg of another curve", jwk(t, p384Pair(), "", "ES256", ""), `alg ES256 does not fit the key, which is EC P-384`},
		{"too short", jwk(t, rsaShort(), "s", "", ""), `kid "s": RSA key has 1024 bits, want 2048 to 8192`},
		{"even exponent", evenExponent, `RSA key has an exponent that is not safe, want 65537`},
		{
			"shared secret", json.RawMessage(`{"kty":"oct","kid":"o","k":"c2VjcmV0"}`),
			`kid "o": is a shared secret, which does not belong in a published set`,
		},
		{"private", private, `kid "p": holds a private key, which whoever reads the set could sign with`},
		{
			"private in capitals", edit(`"use":"sig"`, `"D":"AQAB"`),
			`kid "r1": holds a private key, which whoever reads the set could sign with`,
		},
		{
			"kty unknown", edit(`"RSA"`, `"XYZ"`),
			`kid "r1": not a key of a kind that is supported, want RSA, EC (P-256, P-384, P-521) or OKP (Ed25519)`,
		},
		{
			"kty missing", json.RawMessage(`{}`),
			`not a key of a kind that is supported, want RSA, EC (P-256, P-384, P-521) or OKP (Ed25519)`,
		},
		{
			"not on the curve", json.RawMessage(`{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` +
				strings.Repeat("A", 43) + `"}`),
			`not a key of a kind that is supported, want RSA, EC (P-256, P-384, P-521) or OKP (Ed25519)`,
		},
		{
			"null", json.RawMessage(`null`),
			`not a key of a kind that is supported, want RSA, EC (P-256, P-384, P-521) or OKP (Ed25519)`,
		},
		{"number", json.RawMessage(`1`), `not a JSON Web Key`},
		{"kid number", json.RawMessage(`{"kid":1}`), `not a JSON Web Key`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// One bad key does not spoil the other.
			keys, skipped, err := parseJWKS(jwks(t, jwk(t, p521Pair(), "other", "", ""), test.key))
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" && (len(keys) != 2 || skipped != nil) {
				t.Errorf("got %d keys, skipped %q; want 2", len(keys), skipped)
			}
			if test.want != "" && (len(keys) != 1 || !slices.Equal(skipped, []string{"key 2: " + test.want})) {
				t.Errorf("got %d keys, skipped %q; want 1 and %q", len(keys), skipped, test.want)
			}
		})
	}
}

func TestParseJWKSRefuses(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		if _, _, err := parseJWKS([]byte(body)); err == nil || err.Error() != want {
			t.Errorf("%.40q: got %v, want %s", body, err, want)
		}
	}
	const notASet = `not a key set, want JSON with "keys"`
	f("", notASet)
	f("<!doctype html><title>Sign in</title>", notASet)
	f(`{"keys":[`, notASet)
	f(`{"keys":{}}`, notASet)
	f(`[]`, notASet)
	f(`{"keys":[]}{}`, notASet)
	f(`{}`, `not a key set, which has "keys"`)
	f(`null`, `not a key set, which has "keys"`)
	f(`{"error":"rate limited"}`, `not a key set, which has "keys"`)
	f(`{"keys":null}`, `not a key set, which has "keys"`)
	f(`{"keys":[]}`, `key set is empty, want at least one key`)
	f(`{"keys":[1]}`, `key set has no usable key, want at least one (key 1: not a JSON Web Key)`)

	many := strings.Repeat(`1,`, 99) + "1"
	if _, skipped, err := parseJWKS([]byte(`{"keys":[` + many + `]}`)); err == nil || len(skipped) != maxSkipped+1 {
		t.Errorf("%d skipped keys are named, want %d", len(skipped), maxSkipped+1)
	}
}

func TestKeySetEpoch(t *testing.T) {
	named := func(kid string) *key {
		k, err := newPublicKey(rsaPair().Public(), "jwks")
		if err != nil {
			t.Fatal(err)
		}
		k.id = kid
		return k
	}
	first := newKeySet([]*key{named("a"), named("b")}, nil)
	tests := []struct {
		name  string
		keys  []*key
		epoch uint64
		equal bool
	}{
		{"same", []*key{named("a"), named("b")}, 0, true},
		{"other order", []*key{named("b"), named("a")}, 0, true},
		{"one more", []*key{named("a"), named("b"), named("c")}, 0, false},
		{"one twice", []*key{named("a"), named("a")}, 1, false},
		{"one gone", []*key{named("a")}, 1, false},
		{"one changed", []*key{named("a"), named("c")}, 1, false},
	}
	for _, test := range tests {
		if got := newKeySet(test.keys, first).epoch; got != test.epoch {
			t.Errorf("%s: epoch %d, want %d", test.name, got, test.epoch)
		}
		if got := first.equal(test.keys); got != test.equal {
			t.Errorf("%s: equal %v, want %v", test.name, got, test.equal)
		}
	}
}
