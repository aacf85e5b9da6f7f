package token

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func writeFile(tb testing.TB, content []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "jwks.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func TestConfigErrors(t *testing.T) {
	rsaPEM := publicPEM(t, rsaPair())
	private, err := x509.MarshalPKCS8PrivateKey(rsaPair())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cfg  Config
		want string // all lines
	}{
		{"nothing", Config{}, `jwt: one of secret, public_key, jwks is needed`},
		{"nothing but an algorithm", Config{Algorithms: []string{"HS256"}}, `jwt: one of secret, public_key, jwks is needed`},
		{"secret empty", Config{Secret: []byte{}}, `jwt: secret: is empty, want at least 32 random bytes`},
		{
			"secret is a public key",
			Config{Secret: rsaPEM},
			`jwt: secret: is a PEM document, which is not a shared secret; want public_key for a public key`,
		},
		{
			"none",
			Config{Secret: secret, Algorithms: []string{"none", "NoNe"}},
			"jwt: algorithms: \"none\" is never allowed\njwt: algorithms: \"NoNe\" is never allowed",
		},
		{
			"HS256 without a secret",
			Config{JWKSURL: "https://issuer/jwks", Algorithms: []string{"HS256"}},
			`jwt: algorithms: "HS256" needs a secret, and only jwks is given`,
		},
		{
			"ES256 without its curve",
			Config{PublicKeys: [][]byte{rsaPEM}, Secret: secret, Algorithms: []string{"ES256"}},
			`jwt: algorithms: "ES256" needs an EC P-256 key, and only secret and public_key are given`,
		},
		{
			"unknown",
			Config{Secret: secret, Algorithms: []string{"hs256"}},
			`jwt: algorithms: "hs256" is unknown, want one of ` + strings.Join(algorithmNames(), " "),
		},
		{
			"not PEM",
			Config{PublicKeys: [][]byte{rsaPEM, []byte("x")}},
			`jwt: public_key 2: no PEM block found, want "-----BEGIN PUBLIC KEY-----" or a certificate`,
		},
		{
			"not PEM, and an algorithm",
			Config{PublicKeys: [][]byte{[]byte("x")}, Algorithms: []string{"ES256", "HS256"}},
			"jwt: public_key 1: no PEM block found, want \"-----BEGIN PUBLIC KEY-----\" or a certificate\n" +
				"jwt: algorithms: \"HS256\" needs a secret, and only public_key is given",
		},
		{
			"private key",
			Config{PublicKeys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}},
			`jwt: public_key 1: PEM block 1: is a private key, which does not belong here; want its public key`,
		},
		{
			"rubbish in PEM",
			Config{PublicKeys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})}},
			`jwt: public_key 1: PEM block 1: not a PKIX public key of a kind that is supported, want RSA, ECDSA or Ed25519`,
		},
		{
			"other PEM",
			Config{PublicKeys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: []byte("x")})}},
			`jwt: public_key 1: PEM block 1: "X" is not supported, want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE`,
		},
		{
			"RSA too short",
			Config{PublicKeys: [][]byte{publicPEM(t, rsaShort())}},
			`jwt: public_key 1: PEM block 1: RSA key has 1024 bits, want 2048 to 8192`,
		},
		{
			"curve",
			Config{PublicKeys: [][]byte{publicPEM(t, newECDSA(elliptic.P224()))}},
			`jwt: public_key 1: PEM block 1: ECDSA key is on a curve that is not supported, want P-256, P-384 or P-521`,
		},
		{"scheme", Config{JWKSURL: "ftp://user:pass@issuer/"}, `jwt: jwks: scheme "ftp" is not supported, want https or http`},
		{"no host", Config{JWKSURL: "https:///jwks"}, `jwt: jwks: URL has no host, want https://HOST/PATH`},
		{"not a URL", Config{JWKSURL: "https://user:pass@issuer:x/"}, `jwt: jwks: not a URL, want https://HOST/PATH`},
		{"two sets", Config{JWKSURL: "https://issuer/", JWKSFile: "x"}, `jwt: jwks: a URL and a file are given, want one of them`},
		{"no file", Config{JWKSFile: "/nowhere/jwks.json"}, `jwt: jwks: stat /nowhere/jwks.json: no such file or directory`},
		{"file is a directory", Config{JWKSFile: t.TempDir()}, `jwt: jwks: not a regular file`},
		{"file is no set", Config{JWKSFile: writeFile(t, []byte("<html>"))}, `jwt: jwks: not a key set, want JSON with "keys"`},
		{
			"all at once",
			Config{Secret: secret, Audience: []string{""}, Leeway: -time.Second, MaxSize: -1, RefreshEvery: time.Millisecond},
			"jwt: refresh: 1ms is too short, want 1s or more\n" +
				"jwt: max_size: -1 is negative, want a number of bytes, or 0 for 8192\n" +
				"jwt: leeway: -1s is negative, want 0s or more\n" +
				"jwt: audience: one is empty, want a name",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := New(test.cfg, subject)
			if err == nil || err.Error() != test.want || v != nil {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestDefaultAlgorithms(t *testing.T) {
	f := func(cfg Config, want string) {
		t.Helper()
		allowed, _, _, err := cfg.resolve()
		var names []string
		for _, a := range allowed {
			names = append(names, a.name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("got %v, %v; want %s", names, err, want)
		}
	}
	f(Config{Secret: secret}, "HS256 HS384 HS512")
	f(Config{PublicKeys: [][]byte{publicPEM(t, rsaPair())}}, "RS256 RS384 RS512 PS256 PS384 PS512")
	f(Config{PublicKeys: [][]byte{publicPEM(t, p384Pair()), publicPEM(t, ed25519Pair())}}, "ES384 EdDSA")
	f(Config{JWKSURL: "https://issuer/"}, "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA")
	f(Config{JWKSURL: "https://issuer/", Secret: secret, Algorithms: []string{"ES256", "HS512", "ES256"}}, "ES256 HS512")
}

func TestSecretWarning(t *testing.T) {
	v := newSubject(t, Config{Secret: []byte("short"), Algorithms: []string{"HS256"}})
	want := []string{"secret: 5 bytes are fewer than the 32 that HS256 asks for"}
	if got := v.Health().Warnings; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	wantVerify(t, v, now, signWith(t, "HS256", []byte("short"), "", `{"sub":"ann"}`), "ann", nil)
}

func TestPEMForms(t *testing.T) {
	public := rsaPair().Public()
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(public.(*rsa.PublicKey))})
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, rsaPair())
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	several := slices.Concat([]byte("a comment\n"), publicPEM(t, p256Pair()), publicPEM(t, rsaPair()))
	for name, document := range map[string][]byte{"PKCS #1": pkcs1, "certificate": certificate, "several": several} {
		v := newSubject(t, Config{PublicKeys: [][]byte{document}})
		if wantVerify(t, v, now, sign(t, "RS256", "any", `{"sub":"ann"}`), "ann", nil); t.Failed() {
			t.Fatal(name)
		}
		wantVerify(t, v, now, signWith(t, "RS256", rsaOther(), "", `{"sub":"ann"}`), "", ErrSignature)
	}
	keys := newSubject(t, Config{PublicKeys: [][]byte{several}, Secret: secret}).Keys()
	want := []KeyInfo{
		{Kind: "secret", Source: "secret"},
		{Kind: "EC P-256", Source: "public_key"},
		{Kind: "RSA", Bits: 2048, Source: "public_key"},
	}
	if !slices.Equal(keys, want) {
		t.Errorf("got %+v, want %+v", keys, want)
	}
}
