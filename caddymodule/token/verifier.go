// Package token verifies JSON Web Tokens (RFC 7519) on the hot path of a proxy: with a shared secret, public keys or a
// JSON Web Key Set that it keeps fresh in the background, and with a cache of the tokens that it has verified.
//
// It takes the token as a string and the time as an argument, and knows nothing of requests. Signatures are checked by
// golang-jwt's signing methods, and only then are the claims decoded; the envelope and the registered claims are
// checked here, more strictly than golang-jwt's parser does.
package token

import (
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// maxCached is the longest time that a verified token is served from the cache, whatever its exp.
const maxCached = 5 * time.Minute

// Verifier verifies tokens and turns their claims into a T. Safe for concurrent use.
type Verifier[T any] struct {
	ring    *keyring
	allowed []algorithm
	rules   rules
	maxSize int
	extract func(claims map[string]any) T
	cache   *lru.Cache[string, *entry[T]] // nil when there is none
}

// entry is a verified token. It is not changed once made.
type entry[T any] struct {
	value  T
	epoch  uint64 // of the key set that verified it
	window window
	until  time.Time // to be verified anew from here on
}

// New returns a verifier, or all errors of cfg at once, joined. It reads cfg.JWKSFile and does no other I/O; until
// [Verifier.Start] a verifier with a JWKSURL has no keys of it.
//
// extract turns the claims of a good token into what the caller wants of them, once for each token verified, see
// [Lookup] for the shapes. What it returns is handed out again for every hit of the cache, so nobody may change it.
func New[T any](cfg Config, extract func(claims map[string]any) T) (*Verifier[T], error) {
	allowed, fixed, warnings, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	v := &Verifier[T]{
		allowed: allowed,
		rules: rules{
			issuer: cfg.Issuer, audience: slices.Clone(cfg.Audience), requireExpiry: cfg.RequireExpiry,
			leeway: cfg.Leeway,
		},
		maxSize: cfg.MaxSize,
		extract: extract,
	}
	if cfg.CacheSize > 0 {
		if v.cache, err = lru.New[string, *entry[T]](cfg.CacheSize); err != nil {
			return nil, err
		}
	}
	if v.ring, err = newKeyring(&cfg, fixed, warnings, v.purge); err != nil {
		return nil, err
	}
	return v, nil
}

// Verify returns what extract made of the claims of raw, a compact JWS without "Bearer " or spaces, or one of the
// errors of this package, as it is, with the zero T; [Cause] gives its label. now is the time by which exp, nbf and iat
// are judged.
//
// It does no I/O and waits for nobody but the mutex of the cache. A token verified within the last 5 minutes costs one
// look-up and no allocation.
func (v *Verifier[T]) Verify(now time.Time, raw string) (T, error) {
	var none T
	if len(raw) > v.maxSize {
		return none, ErrTooLarge
	}
	set := v.ring.set.Load()
	if v.cache != nil {
		if e, ok := v.cache.Get(raw); ok {
			switch {
			case e.epoch != set.epoch:
			case e.window.ended(now):
				v.cache.Remove(raw)
				return none, ErrExpired
			case now.Before(e.until) && !e.window.ahead(now):
				return e.value, nil
			}
			v.cache.Remove(raw)
		}
	}
	claims, w, err := v.verify(now, raw, set)
	if err != nil {
		if err == ErrUnknownKey {
			v.ring.ask()
		}
		return none, err
	}
	value := v.extract(claims)
	if v.cache != nil {
		// A clone, since raw may be a piece of a much longer header.
		v.cache.Add(strings.Clone(raw), &entry[T]{value: value, epoch: set.epoch, window: w, until: now.Add(maxCached)})
	}
	return value, nil
}

func (v *Verifier[T]) verify(now time.Time, raw string, set *keySet) (map[string]any, window, error) {
	head, encoded, signed, signature, err := split(raw)
	if err != nil {
		return nil, window{}, err
	}
	h, err := parseHeader(head)
	if err != nil {
		return nil, window{}, err
	}
	a, ok := algorithmNamed(v.allowed, h.algorithm)
	if !ok {
		return nil, window{}, ErrAlgorithm
	}
	decoded, err := segment.DecodeString(signature)
	if err != nil {
		return nil, window{}, ErrMalformed
	}
	if err := set.verify(a, h.kid, signed, decoded); err != nil {
		return nil, window{}, err
	}
	claims, err := decodeClaims(encoded)
	if err != nil {
		return nil, window{}, err
	}
	w, err := v.rules.check(claims, now)
	if err != nil {
		return nil, window{}, err
	}
	return claims, w, nil
}

// purge frees the memory of tokens that a changed key set has made worthless: their epoch already keeps them from
// being served.
func (v *Verifier[T]) purge() {
	if v.cache != nil {
		v.cache.Purge()
	}
}
