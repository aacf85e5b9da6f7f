package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"strings"
)

// The lengths of RSA keys taken, in bits. Less than 2048 is not allowed by RFC 7518 section 3.3; more than 8192 costs
// milliseconds a token and nobody has it.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// key is one verification key. It is not changed once made.
type key struct {
	id          string // kid; "" when it has none
	algorithm   string // the only alg that it may be used with; "" when any that fits its kind
	kind        kind
	bits        int // size of an RSA modulus
	source      string
	material    any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey, as golang-jwt wants them
	fingerprint [sha256.Size]byte
}

// same reports whether two keys accept the same tokens.
func (k *key) same(other *key) bool {
	return k.id == other.id && k.algorithm == other.algorithm && k.kind == other.kind && k.fingerprint == other.fingerprint
}

func newSecret(secret []byte) *key {
	return &key{
		kind: kindSecret, source: "secret", material: append([]byte(nil), secret...),
		fingerprint: sha256.Sum256(secret),
	}
}

// newPublicKey returns a key without an id, or an error that says what is wrong with the key, not what it is.
func newPublicKey(public crypto.PublicKey, source string) (*key, error) {
	k := &key{source: source, material: public}
	switch public := public.(type) {
	case *rsa.PublicKey:
		k.kind, k.bits = kindRSA, public.N.BitLen()
		if k.bits < minRSABits || k.bits > maxRSABits {
			return nil, fmt.Errorf("RSA key has %d bits, want %d to %d", k.bits, minRSABits, maxRSABits)
		}
		if public.E < 3 || public.E > math.MaxInt32 || public.E%2 == 0 {
			return nil, errors.New("RSA key has an exponent that is not safe, want 65537")
		}
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			k.kind = kindP256
		case elliptic.P384():
			k.kind = kindP384
		case elliptic.P521():
			k.kind = kindP521
		default:
			return nil, errors.New("ECDSA key is on a curve that is not supported, want P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("Ed25519 key has %d bytes, want %d", len(public), ed25519.PublicKeySize)
		}
		k.kind = kindEd25519
	default:
		return nil, errors.New("kind of key is not supported, want RSA, ECDSA or Ed25519")
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, errors.New("public key cannot be encoded, want RSA, ECDSA or Ed25519")
	}
	k.fingerprint = sha256.Sum256(der)
	return k, nil
}

// parsePEM returns the keys of all blocks of a document.
func parsePEM(document []byte) ([]*key, error) {
	var keys []*key
	for n := 1; ; n++ {
		var block *pem.Block
		if block, document = pem.Decode(document); block == nil {
			break
		}
		public, err := parseBlock(block)
		if err == nil {
			var k *key
			if k, err = newPublicKey(public, "public_key"); err == nil {
				keys = append(keys, k)
				continue
			}
		}
		return nil, fmt.Errorf("PEM block %d: %w", n, err)
	}
	if len(keys) == 0 {
		return nil, errors.New(`no PEM block found, want "-----BEGIN PUBLIC KEY-----" or a certificate`)
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	// The parsers' errors are not passed on: they may quote what they read.
	switch {
	case block.Type == "PUBLIC KEY":
		if public, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			return public, nil
		}
		return nil, errors.New("not a PKIX public key of a kind that is supported, want RSA, ECDSA or Ed25519")
	case block.Type == "RSA PUBLIC KEY":
		if public, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
			return public, nil
		}
		return nil, errors.New("not a PKCS #1 public key")
	case block.Type == "CERTIFICATE":
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			return certificate.PublicKey, nil
		}
		return nil, errors.New("not an X.509 certificate")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("is a private key, which does not belong here; want its public key")
	}
	return nil, fmt.Errorf("%.40q is not supported, want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", block.Type)
}
