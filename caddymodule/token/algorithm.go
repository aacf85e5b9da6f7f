package token

import (
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// kind is the sort of key that an algorithm needs. An ES algorithm is bound to one curve (RFC 7518 section 3.4), which
// golang-jwt does not check when it verifies.
type kind uint8

const (
	kindNone kind = iota
	kindSecret
	kindRSA
	kindP256
	kindP384
	kindP521
	kindEd25519
	kindCount
)

func (k kind) String() string {
	return [kindCount]string{"none", "secret", "RSA", "EC P-256", "EC P-384", "EC P-521", "Ed25519"}[k]
}

type algorithm struct {
	name   string
	kind   kind
	method jwt.SigningMethod
}

// algorithms are all that there are, in the order in which errors list them. "none" is not one.
var algorithms = []algorithm{
	{"HS256", kindSecret, jwt.SigningMethodHS256},
	{"HS384", kindSecret, jwt.SigningMethodHS384},
	{"HS512", kindSecret, jwt.SigningMethodHS512},
	{"RS256", kindRSA, jwt.SigningMethodRS256},
	{"RS384", kindRSA, jwt.SigningMethodRS384},
	{"RS512", kindRSA, jwt.SigningMethodRS512},
	{"PS256", kindRSA, jwt.SigningMethodPS256},
	{"PS384", kindRSA, jwt.SigningMethodPS384},
	{"PS512", kindRSA, jwt.SigningMethodPS512},
	{"ES256", kindP256, jwt.SigningMethodES256},
	{"ES384", kindP384, jwt.SigningMethodES384},
	{"ES512", kindP521, jwt.SigningMethodES512},
	{"EdDSA", kindEd25519, jwt.SigningMethodEdDSA},
}

func algorithmNamed(list []algorithm, name string) (algorithm, bool) {
	i := slices.IndexFunc(list, func(a algorithm) bool { return a.name == name })
	if i < 0 {
		return algorithm{}, false
	}
	return list[i], true
}

func algorithmNames() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = a.name
	}
	return names
}

// hashBits is the length of the algorithm's hash in bits, 0 for EdDSA.
func (a algorithm) hashBits() int {
	switch {
	case strings.HasSuffix(a.name, "256"):
		return 256
	case strings.HasSuffix(a.name, "384"):
		return 384
	case strings.HasSuffix(a.name, "512"):
		return 512
	}
	return 0
}
