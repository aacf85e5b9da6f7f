package caddymodule

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// signer signs short texts, and verifies what it or another instance with one of
// its keys has signed: HMAC-SHA256, with keys derived for one purpose each, so that
// nothing signed for one can be passed off as another.
type signer struct{ keys [][]byte }

// leastSecret is the fewest bytes of a secret.
const leastSecret = 16

// configuredSigner makes a signer of secrets in a config, whose placeholders it
// resolves.
func configuredSigner(purpose string, secrets []string) (*signer, error) {
	repl, plain := caddy.NewReplacer(), make([]string, len(secrets))
	for i, secret := range secrets {
		var err error
		if plain[i], err = resolved(repl, fmt.Sprintf("key: number %d", i+1), secret); err != nil {
			return nil, err
		}
	}
	return newSigner(purpose, plain...)
}

// newSigner makes a signer of secrets. The first one signs, all verify.
func newSigner(purpose string, secrets ...string) (*signer, error) {
	s := new(signer)
	for i, secret := range secrets {
		if len(secret) < leastSecret {
			return nil, fmt.Errorf("key: number %d has %d bytes, want %d or more of a random secret", i+1, len(secret), leastSecret)
		}
		s.keys = append(s.keys, mac([]byte(secret), "caddy-feature-flags", purpose, "v1"))
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("key: want one or more secrets, as {env.FEATURE_FLAGS_KEY}")
	}
	return s, nil
}

// mac authenticates parts that hold no zero byte.
func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}

// macLength is that of what sign returns.
const macLength = 43

// sign returns what stands for the parts, in letters that fit into headers, cookies
// and addresses.
func (s *signer) sign(parts ...string) string {
	return base64.RawURLEncoding.EncodeToString(mac(s.keys[0], parts...))
}

// verify tells whether given is what sign returns for the parts.
func (s *signer) verify(given string, parts ...string) bool {
	if len(given) != macLength {
		return false
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(given)
	if err != nil {
		return false
	}
	ok := false
	for _, key := range s.keys {
		ok = hmac.Equal(sum, mac(key, parts...)) || ok
	}
	return ok
}

// signUntil returns what stands for a moment, in whole seconds, and the parts.
func (s *signer) signUntil(end time.Time, parts ...string) string {
	text := strconv.FormatInt(end.Unix(), 36)
	return text + "." + s.sign(append([]string{text}, parts...)...)
}

// verifyUntil returns the moment, if given is what signUntil returns for it and the
// parts. It may have passed.
func (s *signer) verifyUntil(given string, parts ...string) (end time.Time, ok bool) {
	text, sum, _ := strings.Cut(given, ".")
	if len(text) > 13 || !s.verify(sum, append([]string{text}, parts...)...) {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(text, 36, 64)
	return time.Unix(seconds, 0), err == nil
}

// pseudonym stands for a text towards everybody who has the key.
func (s *signer) pseudonym(text string) string { return pseudonymBy(s.keys[0], text) }

// isPseudonym tells whether given stands for the text.
func (s *signer) isPseudonym(given, text string) bool {
	for _, key := range s.keys {
		if hmac.Equal([]byte(given), []byte(pseudonymBy(key, text))) {
			return true
		}
	}
	return false
}

func pseudonymBy(key []byte, text string) string {
	return base64.RawURLEncoding.EncodeToString(mac(key, "user", text)[:12])
}
