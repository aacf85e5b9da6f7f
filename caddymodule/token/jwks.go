package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// maxSkipped bounds the skipped keys that are named.
const maxSkipped = 16

// parseJWKS returns the keys of a JSON Web Key Set (RFC 7517) that can verify a signature and why the others were
// skipped. Each key is parsed on its own, so that a bad one does not spoil the set. A set without any usable key is an
// error. No error or reason quotes the body, but for kids.
func parseJWKS(body []byte) (keys []*key, skipped []string, err error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, nil, errors.New(`not a key set, want JSON with "keys"`)
	}
	if set.Keys == nil {
		return nil, nil, errors.New(`not a key set, which has "keys"`)
	}
	if len(*set.Keys) == 0 {
		return nil, nil, errors.New("key set is empty, want at least one key")
	}
	for i, raw := range *set.Keys {
		k, err := parseJWK(raw)
		if err == nil {
			keys = append(keys, k)
			continue
		}
		if len(skipped) == maxSkipped {
			skipped = append(skipped, "and more")
		} else if len(skipped) < maxSkipped {
			skipped = append(skipped, fmt.Sprintf("key %d: %v", i+1, err))
		}
	}
	if len(keys) == 0 {
		return nil, skipped, fmt.Errorf("key set has no usable key, want at least one (%s)", skipped[0])
	}
	return keys, skipped, nil
}

func parseJWK(raw json.RawMessage) (*key, error) {
	// *string, so that null is the same as absent. go-jose reads private keys too, warns against doing so with untrusted input, and knows no key_ops.
	var head struct {
		KeyType    string   `json:"kty"`
		ID         string   `json:"kid"`
		Use        string   `json:"use"`
		Algorithm  string   `json:"alg"`
		Operations []string `json:"key_ops"`
		K          *string  `json:"k"`
		D          *string  `json:"d"`
		P          *string  `json:"p"`
		Q          *string  `json:"q"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, errors.New("not a JSON Web Key")
	}
	name := func(format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		if head.ID != "" {
			return fmt.Errorf("kid %.64q: %w", head.ID, err)
		}
		return err
	}
	switch {
	case head.KeyType == "oct" || head.K != nil:
		return nil, name("is a shared secret, which does not belong in a published set")
	case head.D != nil || head.P != nil || head.Q != nil:
		return nil, name("holds a private key, which whoever reads the set could sign with")
	case head.Use != "" && head.Use != "sig":
		return nil, name("use is %.16q, want %q", head.Use, "sig")
	case head.Operations != nil && !slices.Contains(head.Operations, "verify"):
		return nil, name("key_ops has no %q", "verify")
	}

	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(raw); err != nil {
		return nil, name("not a key of a kind that is supported, want RSA, EC (P-256, P-384, P-521) or OKP (Ed25519)")
	}
	k, err := newPublicKey(parsed.Key, "jwks")
	if err != nil {
		return nil, name("%w", err)
	}
	if head.Algorithm != "" {
		a, ok := algorithmNamed(algorithms, head.Algorithm)
		if !ok {
			return nil, name("alg %.16q is not a signature algorithm that is supported", head.Algorithm)
		}
		if a.kind != k.kind {
			return nil, name("alg %s does not fit the key, which is %s", a.name, k.kind)
		}
	}
	k.id, k.algorithm = head.ID, head.Algorithm
	return k, nil
}
