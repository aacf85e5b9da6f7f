package token

import (
	"slices"
	"strings"
	"time"
)

// maxError bounds [Health.LastError], in bytes: net/http quotes what a server that speaks no HTTP has sent.
const maxError = 300

// Health is the state of the keys, for an operator. It holds no key material, no URL and no token.
type Health struct {
	// Keys is the number of keys in force, the secret included.
	Keys int `json:"keys"`
	// Cached is the number of verified tokens kept.
	Cached int `json:"cached"`
	// LastRefresh is when the JWKS was last read well. Zero: never, or there is none.
	LastRefresh time.Time `json:"last_refresh,omitzero"`
	// LastAttempt is when it was last tried.
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	// LastError says why the last attempt failed. Empty: it did not. The keys from before it stay in force.
	LastError string `json:"last_error,omitempty"`
	// Failures counts the attempts that failed since the last one that did not.
	Failures int `json:"failures,omitempty"`
	// Skipped says which keys of the JWKS are not used and why, 16 at most.
	Skipped []string `json:"skipped,omitempty"`
	// Warnings are about the config, such as a secret that is too short.
	Warnings []string `json:"warnings,omitempty"`
}

// KeyInfo describes a key in force without giving it away.
type KeyInfo struct {
	ID        string `json:"kid,omitempty"`  // empty when it has none
	Kind      string `json:"kind"`           // "secret", "RSA", "EC P-256", "EC P-384", "EC P-521" or "Ed25519"
	Bits      int    `json:"bits,omitempty"` // of an RSA key
	Algorithm string `json:"alg,omitempty"`  // the only one that it is for; empty when any that fits its kind
	Source    string `json:"source"`         // "secret", "public_key" or "jwks"
}

// Health returns the state of the keys.
func (v *Verifier[T]) Health() Health {
	h := v.ring.snapshot()
	if v.cache != nil {
		h.Cached = v.cache.Len()
	}
	return h
}

// Keys describes the keys in force: the secret, the public keys, then those of the JWKS in its order.
func (v *Verifier[T]) Keys() []KeyInfo {
	keys := v.ring.set.Load().keys
	infos := make([]KeyInfo, len(keys))
	for i, k := range keys {
		infos[i] = KeyInfo{ID: k.id, Kind: k.kind.String(), Bits: k.bits, Algorithm: k.algorithm, Source: k.source}
	}
	return infos
}

func (r *keyring) snapshot() Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copyHealth()
}

// copyHealth needs the caller to hold mu.
func (r *keyring) copyHealth() Health {
	h := r.health
	h.Keys = len(r.set.Load().keys)
	h.Skipped, h.Warnings = slices.Clone(h.Skipped), slices.Clone(h.Warnings)
	return h
}

// record notes how an attempt went and reports whether it began to fail or works again.
func (r *keyring) record(now time.Time, err error, changed bool, skipped []string) (h Health, turned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	turned = (err != nil) != (r.health.Failures > 0)
	r.health.LastAttempt = now
	if err != nil {
		r.health.LastError = err.Error()
		if len(r.health.LastError) > maxError {
			r.health.LastError = strings.ToValidUTF8(r.health.LastError[:maxError], "") + "…"
		}
		r.health.Failures++
		return r.copyHealth(), turned
	}
	r.health.LastError, r.health.Failures = "", 0
	if changed {
		r.health.LastRefresh, r.health.Skipped = now, skipped
	}
	return r.copyHealth(), turned
}
