package token

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	defaultRefresh   = 5 * time.Minute
	defaultMaxSize   = 8192
	defaultCacheSize = 4096
)

// Config says which tokens are good. Every value is resolved: placeholders are the caller's business, and so is the
// check that a placeholder did not resolve to nothing, since an empty Issuer means that any issuer will do.
//
// At least one of Secret, PublicKeys, JWKSURL and JWKSFile is needed; several may be given, but for the two JWKS.
type Config struct {
	// Secret is the key of HS256, HS384 and HS512, as raw bytes. nil: none. A secret shorter than the hash is used but
	// named in [Health.Warnings]; a PEM public key, which is no secret, is refused.
	Secret []byte
	// PublicKeys are PEM documents, each with one or more blocks: a PKIX or PKCS #1 public key or a certificate (whose
	// dates and issuer are not looked at), of RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519.
	PublicKeys [][]byte
	// JWKSURL is the http or https address of a JSON Web Key Set. It is fetched by Start, again every RefreshEvery, and
	// when a token names a key that is not in the set, which happens at most once in 10 seconds.
	JWKSURL string
	// JWKSFile is the path of such a set. New reads it, and after Start it is looked at every 2 seconds and read again
	// when it has changed. Not together with JWKSURL.
	JWKSFile string
	// RefreshEvery is the time between fetches of JWKSURL, varied by a tenth. 0: 5 minutes. The least is 1 second.
	RefreshEvery time.Duration
	// Algorithms is the list of allowed values of alg. Empty: what the keys given can verify, so HS256, HS384 and HS512
	// for a secret; RS*, PS*, ES* and EdDSA for public keys and a JWKS. "none" is never allowed.
	Algorithms []string
	// Issuer is what iss must be. Empty: iss is not looked at.
	Issuer string
	// Audience: aud must have at least one of these. Empty: aud is not looked at.
	Audience []string
	// RequireExpiry refuses a token without exp. Default: it is accepted.
	RequireExpiry bool
	// Leeway is the clock difference that exp, nbf and iat are given. 0: none.
	Leeway time.Duration
	// MaxSize is the length of the longest token accepted, in bytes. 0: 8192.
	MaxSize int
	// CacheSize is the number of verified tokens kept, each for at most 5 minutes. 0: 4096. Negative: none.
	CacheSize int
	// HTTPClient fetches JWKSURL. nil: one that follows no redirect from https to http. Every fetch, body included,
	// ends after 10 seconds and 1 MiB in any case.
	HTTPClient *http.Client
	// OnChange is called from the background goroutine, with no lock held, when refreshing the JWKS begins to fail,
	// works again, or changes the keys: the place to log from. nil: nobody is told.
	OnChange func(Health)
}

// resolve sets defaults and checks everything. It returns the algorithms allowed, the keys given in the config and
// warnings, or all errors at once, joined.
func (c *Config) resolve() (allowed []algorithm, fixed []*key, warnings []string, err error) {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf("jwt: "+format, args...)) }

	if c.RefreshEvery == 0 {
		c.RefreshEvery = defaultRefresh
	}
	if c.MaxSize == 0 {
		c.MaxSize = defaultMaxSize
	}
	if c.CacheSize == 0 {
		c.CacheSize = defaultCacheSize
	}
	if c.RefreshEvery < time.Second {
		report("refresh: %s is too short, want 1s or more", c.RefreshEvery)
	}
	if c.MaxSize < 0 {
		report("max_size: %d is negative, want a number of bytes, or 0 for %d", c.MaxSize, defaultMaxSize)
	}
	if c.Leeway < 0 {
		report("leeway: %s is negative, want 0s or more", c.Leeway)
	}
	if slices.Contains(c.Audience, "") {
		report("audience: one is empty, want a name")
	}

	if c.Secret == nil && len(c.PublicKeys) == 0 && c.JWKSURL == "" && c.JWKSFile == "" {
		report("one of secret, public_key, jwks is needed")
	}
	if c.Secret != nil {
		if err := checkSecret(c.Secret); err != nil {
			report("secret: %w", err)
		} else {
			fixed = append(fixed, newSecret(c.Secret))
		}
	}
	unread := false
	for i, document := range c.PublicKeys {
		keys, err := parsePEM(document)
		if err != nil {
			report("public_key %d: %w", i+1, err)
			unread = true
		}
		fixed = append(fixed, keys...)
	}
	if c.JWKSURL != "" && c.JWKSFile != "" {
		report("jwks: a URL and a file are given, want one of them")
	}
	if c.JWKSURL != "" {
		if err := checkURL(c.JWKSURL); err != nil {
			report("jwks: %w", err)
		}
	}

	allowed, algorithmErrs := c.resolveAlgorithms(fixed, unread)
	errs = append(errs, algorithmErrs...)
	for _, a := range allowed {
		// RFC 7518 section 3.2: a key as long as the hash, or longer, MUST be used.
		if want := a.hashBits() / 8; a.kind == kindSecret && len(c.Secret) > 0 && len(c.Secret) < want {
			warnings = append(warnings, fmt.Sprintf("secret: %d bytes are fewer than the %d that %s asks for",
				len(c.Secret), want, a.name))
		}
	}
	return allowed, fixed, warnings, errors.Join(errs...)
}

// resolveAlgorithms returns the algorithms allowed, each of which has a key that it may be used with or a JWKS where
// one may appear. unread says that a public key could not be read, so that none is missed.
func (c *Config) resolveAlgorithms(fixed []*key, unread bool) (allowed []algorithm, errs []error) {
	var given []string
	var have [kindCount]bool
	if c.Secret != nil {
		given = append(given, "secret")
		have[kindSecret] = true
	}
	if len(c.PublicKeys) > 0 {
		given = append(given, "public_key")
	}
	for _, k := range fixed {
		have[k.kind] = true
	}
	if c.JWKSURL != "" || c.JWKSFile != "" {
		given = append(given, "jwks")
	}
	if c.JWKSURL != "" || c.JWKSFile != "" || unread {
		for k := kindRSA; k < kindCount; k++ {
			have[k] = true
		}
	}

	if len(c.Algorithms) == 0 {
		for _, a := range algorithms {
			if have[a.kind] {
				allowed = append(allowed, a)
			}
		}
		return allowed, nil
	}
	for _, name := range c.Algorithms {
		a, ok := algorithmNamed(algorithms, name)
		switch {
		case strings.EqualFold(name, "none"):
			errs = append(errs, fmt.Errorf("jwt: algorithms: %q is never allowed", name))
		case !ok:
			errs = append(errs, fmt.Errorf("jwt: algorithms: %q is unknown, want one of %s", name,
				strings.Join(algorithmNames(), " ")))
		case !have[a.kind] && len(given) > 0:
			needs := "an " + a.kind.String() + " key"
			if a.kind == kindSecret {
				needs = "a secret"
			}
			verb := "is"
			if len(given) > 1 {
				verb = "are"
			}
			errs = append(errs, fmt.Errorf("jwt: algorithms: %q needs %s, and only %s %s given", name, needs,
				strings.Join(given, " and "), verb))
		case !slices.ContainsFunc(allowed, func(b algorithm) bool { return b.name == name }):
			allowed = append(allowed, a)
		}
	}
	return allowed, errs
}

func checkSecret(secret []byte) error {
	if len(secret) == 0 {
		return errors.New("is empty, want at least 32 random bytes")
	}
	// The classic confusion, made by the operator: whoever has the public key could then sign with HS256.
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return errors.New("is a PEM document, which is not a shared secret; want public_key for a public key")
	}
	return nil
}

// checkURL never repeats the address, which may hold a password.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("not a URL, want https://HOST/PATH")
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("scheme %q is not supported, want https or http", u.Scheme)
	}
	if u.Host == "" {
		return errors.New("URL has no host, want https://HOST/PATH")
	}
	return nil
}
