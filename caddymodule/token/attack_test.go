package token

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestNoneIsRefused(t *testing.T) {
	v := newSubject(t, allKeys(t))
	unsigned := func(alg string) string { return encode(`{"alg":"`+alg+`"}`) + "." + encode(`{"sub":"ann"}`) + "." }
	for bits := range 16 { // all cases of letters
		alg := []byte("none")
		for i := range alg {
			if bits&(1<<i) != 0 {
				alg[i] -= 'a' - 'A'
			}
		}
		wantVerify(t, v, now, unsigned(string(alg)), "", ErrAlgorithm)
	}
	for _, alg := range []string{"none ", " none", `none\u0000`, `n\u006fne`, "", "hs256", "HS256 ", "HS1", "RS1", "ES256K"} {
		wantVerify(t, v, now, unsigned(alg), "", ErrAlgorithm)
	}
	// A good alg and no signature, or a signature of the right length and no key.
	wantVerify(t, v, now, unsigned("HS256"), "", ErrSignature)
	wantVerify(t, v, now, unsigned("RS256"), "", ErrSignature)
	wantVerify(t, v, now, unsigned("ES256")+strings.Repeat("A", 86), "", ErrSignature) // r = s = 0
	wantVerify(t, v, now, unsigned("EdDSA")+strings.Repeat("A", 86), "", ErrSignature)
	good := sign(t, "HS256", "", `{"sub":"ann"}`)
	wantVerify(t, v, now, good[:strings.LastIndexByte(good, '.')+1], "", ErrSignature)
}

// The public key, which anybody has, as the secret of HS256.
func TestKeyConfusion(t *testing.T) {
	document := publicPEM(t, rsaPair())
	forged := signWith(t, "HS256", document, "", `{"sub":"ann"}`)
	withKid := signWith(t, "HS256", document, "r1", `{"sub":"ann"}`)
	both := Config{PublicKeys: [][]byte{document}, Secret: secret}
	wantVerify(t, newSubject(t, Config{PublicKeys: [][]byte{document}}), now, forged, "", ErrAlgorithm)
	wantVerify(t, newSubject(t, both), now, forged, "", ErrSignature)

	path := writeFile(t, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
	wantVerify(t, newSubject(t, Config{JWKSFile: path}), now, withKid, "", ErrAlgorithm)
	wantVerify(t, newSubject(t, Config{JWKSFile: path, Secret: secret}), now, withKid, "", ErrAlgorithm)
	// A key is not used for another algorithm than its own, nor a curve for another's.
	path = writeFile(t, jwks(t, jwk(t, rsaPair(), "r1", "RS256", "sig"), jwk(t, p384Pair(), "e1", "", "")))
	v := newSubject(t, Config{JWKSFile: path})
	wantVerify(t, v, now, sign(t, "RS256", "r1", `{"sub":"ann"}`), "ann", nil)
	wantVerify(t, v, now, sign(t, "PS256", "r1", `{"sub":"ann"}`), "", ErrAlgorithm)
	wantVerify(t, v, now, sign(t, "RS512", "r1", `{"sub":"ann"}`), "", ErrAlgorithm)
	wantVerify(t, v, now, sign(t, "ES256", "e1", `{"sub":"ann"}`), "", ErrAlgorithm)
	wantVerify(t, v, now, sign(t, "RS256", "e1", `{"sub":"ann"}`), "", ErrAlgorithm)
	wantVerify(t, v, now, sign(t, "ES384", "e1", `{"sub":"ann"}`), "ann", nil)
	wantVerify(t, v, now, sign(t, "PS256", "", `{"sub":"ann"}`), "", ErrUnknownKey)
}

func TestKidTricks(t *testing.T) {
	path := writeFile(t, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
	v := newSubject(t, Config{JWKSFile: path, Secret: secret})
	for _, kid := range []string{
		"../../../../dev/null", "/dev/null", "https://evil/jwks.json", "' OR 1=1 --", "R1", "r1 ",
		`r1\u0000`, "", strings.Repeat("k", 4000),
	} {
		want := ErrUnknownKey
		if kid == "" {
			want = ErrSignature // no kid: every key that fits is tried
		}
		head := `{"alg":"RS256","kid":"` + kid + `"}`
		wantVerify(t, v, now, signText(t, "RS256", rsaOther(), head, `{"sub":"ann"}`), "", want)
		// The secret has no id, so any kid will do, and an empty file named by one is not the secret.
		head = `{"alg":"HS256","kid":"` + kid + `"}`
		wantVerify(t, v, now, signText(t, "HS256", secret, head, `{"sub":"ann"}`), "ann", nil)
		wantVerify(t, v, now, signText(t, "HS256", []byte{}, head, `{"sub":"ann"}`), "", ErrSignature)
	}
	for _, kid := range []string{`1`, `null`, `["r1"]`, `{"r1":1}`} {
		head := `{"alg":"RS256","kid":` + kid + `}`
		wantVerify(t, v, now, signText(t, "RS256", rsaPair(), head, `{"sub":"ann"}`), "", ErrMalformed)
	}
	wantVerify(t, v, now, signWith(t, "RS256", rsaOther(), "r1", `{"sub":"ann"}`), "", ErrSignature)
	wantVerify(t, v, now, sign(t, "RS256", "r1", `{"sub":"ann"}`), "ann", nil)
}

func TestHeaders(t *testing.T) {
	v := newSubject(t, Config{PublicKeys: [][]byte{publicPEM(t, rsaPair())}})
	own := string(jwk(t, rsaOther(), "r1", "RS256", "sig"))
	tests := []struct {
		name    string
		head    string
		private any
		want    error
	}{
		{"its own jwk", `{"alg":"RS256","jwk":` + own + `}`, rsaOther(), ErrSignature},
		{"its own jku", `{"alg":"RS256","jku":"https://evil/"}`, rsaOther(), ErrSignature},
		{"jwk beside a good signature", `{"alg":"RS256","jwk":` + own + `}`, rsaPair(), nil},
		{"crit unknown", `{"alg":"RS256","crit":["exp"],"exp":1}`, rsaPair(), ErrCritical},
		{"crit b64", `{"alg":"RS256","crit":["b64"],"b64":false}`, rsaPair(), ErrCritical},
		{"crit empty", `{"alg":"RS256","crit":[]}`, rsaPair(), ErrCritical},
		{"crit null", `{"alg":"RS256","crit":null}`, rsaPair(), ErrCritical},
		{"alg missing", `{"typ":"JWT"}`, rsaPair(), ErrAlgorithm},
		{"alg number", `{"alg":256}`, rsaPair(), ErrMalformed},
		{"alg list", `{"alg":["RS256"]}`, rsaPair(), ErrMalformed},
		{"alg in capitals", `{"ALG":"RS256"}`, rsaPair(), ErrAlgorithm},
		{"alg twice, the last counts", `{"alg":"none","alg":"RS256"}`, rsaPair(), nil},
		{"alg twice, the last is none", `{"alg":"RS256","alg":"none"}`, rsaPair(), ErrAlgorithm},
		{"null", `null`, rsaPair(), ErrMalformed},
		{"list", `["RS256"]`, rsaPair(), ErrMalformed},
		{"something after", `{"alg":"RS256"}{}`, rsaPair(), ErrMalformed},
		{"not UTF-8", "{\"alg\":\"RS256\",\"x\":\"\xff\"}", rsaPair(), ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := "ann"
			if test.want != nil {
				want = ""
			}
			wantVerify(t, v, now, signText(t, "RS256", test.private, test.head, `{"sub":"ann"}`), want, test.want)
		})
	}
}

func TestEnvelope(t *testing.T) {
	v := newSubject(t, Config{Secret: secret})
	good := sign(t, "HS256", "", `{"sub":"ann"}`)
	parts := strings.Split(good, ".")
	// HS256 signs 32 bytes, 43 characters: the last holds two spare bits.
	spare := base64.RawURLEncoding.EncodeToString([]byte{0})
	if len(parts[2]) != 43 || spare != "AA" {
		t.Fatal("the test is wrong about base64")
	}
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := alphabet[strings.IndexByte(alphabet, good[len(good)-1])+1]
	f := func(raw string, want error) {
		t.Helper()
		wantVerify(t, v, now, raw, "", want)
	}
	f("", ErrMalformed)
	f(".", ErrMalformed)
	f("..", ErrMalformed)
	f("....", ErrEncrypted)
	f("a.b.c.d.e", ErrEncrypted)
	f(strings.Repeat(".", 8000), ErrMalformed)
	f(parts[0]+"."+parts[1], ErrMalformed)
	f(good+".", ErrMalformed)
	f("Bearer "+good, ErrMalformed)
	f(" "+good, ErrMalformed)
	f(good+" ", ErrMalformed)
	f(good+"=", ErrMalformed)
	f(good+"\n", ErrMalformed)
	f(good[:10]+"\r\n"+good[10:], ErrMalformed)
	f(good[:len(good)-1]+string(last), ErrMalformed)
	f(strings.ReplaceAll(good, ".", "%2E"), ErrMalformed)
	f(parts[0]+".!!!."+parts[2], ErrSignature) // the claims are not read before the signature is checked
	f(parts[0]+"."+parts[1]+".+/+/", ErrMalformed)
	f("\x00\xff\xfe."+parts[1]+"."+parts[2], ErrMalformed)
	f(`{"protected":"`+parts[0]+`","payload":"`+parts[1]+`","signature":"`+parts[2]+`"}`, ErrMalformed)
	wantVerify(t, v, now, good, "ann", nil)
	if v.Health().Cached != 1 {
		t.Errorf("%d tokens cached, want the good one only", v.Health().Cached)
	}
}

// However many keys fit, a token without kid costs a bounded number of signature checks.
func TestAttemptsAreBounded(t *testing.T) {
	var keys []*key
	for range maxAttempts {
		k, err := newPublicKey(rsaOther().Public(), "jwks")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	last, err := newPublicKey(rsaPair().Public(), "jwks")
	if err != nil {
		t.Fatal(err)
	}
	method := &counting{SigningMethod: jwt.SigningMethodRS256}
	a := algorithm{"RS256", kindRSA, method}
	_, _, signed, signature, _ := split(sign(t, "RS256", "", `{}`))
	decoded, _ := segment.DecodeString(signature)
	if err := newKeySet(append(keys, last), nil).verify(a, "", signed, decoded); err != ErrSignature || method.calls != maxAttempts {
		t.Errorf("got %v after %d attempts, want ErrSignature after %d", err, method.calls, maxAttempts)
	}
	if err := newKeySet(append(keys[:15:15], last), nil).verify(a, "", signed, decoded); err != nil {
		t.Errorf("the 16th key: %v", err)
	}
}

type counting struct {
	jwt.SigningMethod
	calls int
}

func (c *counting) Verify(signed string, signature []byte, key any) error {
	c.calls++
	return c.SigningMethod.Verify(signed, signature, key)
}

func TestDuplicateClaims(t *testing.T) {
	v, err := New(Config{Secret: secret}, func(claims map[string]any) string {
		raw, _ := json.Marshal(claims)
		return string(raw)
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := sign(t, "HS256", "", `{"sub":"ann","sub":"bob","a":{"x":1,"y":2},"a":{"x":3}}`)
	wantVerify(t, v, now, raw, `{"a":{"x":3},"sub":"bob"}`, nil)
}
