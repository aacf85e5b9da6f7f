package token

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// segment is base64url without padding. Strict, so that a token has one spelling only: the bits that the last
// character of a signature leaves over must be zero.
var segment = base64.RawURLEncoding.Strict()

// header is what is read of a JOSE header. jwk, jku, x5c and x5u, by which a token would bring its own key, are not.
type header struct {
	algorithm string
	kid       string
}

// split cuts a compact JWS into what is signed (header and claims with the dot between), the claims and the signature,
// all still encoded. It returns ErrEncrypted for the five parts of a JWE and ErrMalformed otherwise.
func split(raw string) (head, claims, signed, signature string, err error) {
	switch strings.Count(raw, ".") {
	case 2:
	case 4:
		return "", "", "", "", ErrEncrypted
	default:
		return "", "", "", "", ErrMalformed
	}
	// encoding/base64 skips line breaks, also when strict.
	if strings.IndexByte(raw, '\n') >= 0 || strings.IndexByte(raw, '\r') >= 0 {
		return "", "", "", "", ErrMalformed
	}
	first, last := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	return raw[:first], raw[first+1 : last], raw[:last], raw[last+1:], nil
}

// parseHeader returns ErrMalformed, ErrCritical or, when there is no alg, ErrAlgorithm.
func parseHeader(encoded string) (header, error) {
	decoded, err := segment.DecodeString(encoded)
	if err != nil || !utf8.Valid(decoded) {
		return header{}, ErrMalformed
	}
	// A map, since a struct would take "ALG" and "Kid" too.
	var fields map[string]any
	if err := json.Unmarshal(decoded, &fields); err != nil || fields == nil {
		return header{}, ErrMalformed
	}
	if _, ok := fields["crit"]; ok {
		return header{}, ErrCritical
	}
	var h header
	if value, ok := fields["kid"]; ok {
		if h.kid, ok = value.(string); !ok {
			return header{}, ErrMalformed
		}
	}
	value, ok := fields["alg"]
	if !ok {
		return header{}, ErrAlgorithm
	}
	if h.algorithm, ok = value.(string); !ok {
		return header{}, ErrMalformed
	}
	return h, nil
}
