package token

import "errors"

// The reasons for which [Verifier.Verify] refuses a token. It returns them as they are, never wrapped: none of them
// holds any part of the token, a claim or a key, so all of them may be logged.
var (
	// ErrTooLarge: the token is longer than [Config.MaxSize]. Nothing of it was decoded.
	ErrTooLarge = errors.New("token is too large")
	// ErrMalformed: not three parts of base64url; a header or claims that are not one JSON object in UTF-8; exp, nbf
	// or iat that is not a number up to the year 9999; iss or aud of a wrong type where one is asked for.
	ErrMalformed = errors.New("token is malformed")
	// ErrEncrypted: five parts, a JWE. This package verifies signatures and decrypts nothing.
	ErrEncrypted = errors.New("token is encrypted")
	// ErrAlgorithm: alg is missing, "none", unknown, not in the list, or does not fit the key that kid names.
	ErrAlgorithm = errors.New("token algorithm is not allowed")
	// ErrCritical: the header has crit (RFC 7515 section 4.1.11). No extension is understood, so no crit is.
	ErrCritical = errors.New("token has a critical header that is not understood")
	// ErrNoKeys: no key for this kind of algorithm is loaded, for instance because the JWKS never answered.
	ErrNoKeys = errors.New("no keys to verify a token with")
	// ErrUnknownKey: kid names a key that is not in the set, or the token has no kid and no key fits its algorithm. A
	// refresh of the JWKS has been asked for.
	ErrUnknownKey = errors.New("token key is unknown")
	// ErrSignature: no key that may be tried made this signature.
	ErrSignature = errors.New("token signature does not match")
	// ErrExpired: exp, the leeway added, has been reached.
	ErrExpired = errors.New("token is expired")
	// ErrNoExpiry: there is no exp and [Config.RequireExpiry] asks for one.
	ErrNoExpiry = errors.New("token has no expiry")
	// ErrNotYetValid: nbf or iat lies in the future by more than the leeway.
	ErrNotYetValid = errors.New("token is not valid yet")
	// ErrIssuer: iss is missing or another one.
	ErrIssuer = errors.New("token issuer is not the one wanted")
	// ErrAudience: aud is missing or has none of the audiences wanted.
	ErrAudience = errors.New("token audience is not one wanted")
)

var causes = []struct {
	err   error
	label string
}{
	{ErrExpired, "expired"},
	{ErrSignature, "signature"},
	{ErrMalformed, "malformed"},
	{ErrUnknownKey, "unknown_key"},
	{ErrAlgorithm, "algorithm"},
	{ErrIssuer, "issuer"},
	{ErrAudience, "audience"},
	{ErrNotYetValid, "not_yet_valid"},
	{ErrNoKeys, "no_keys"},
	{ErrTooLarge, "too_large"},
	{ErrEncrypted, "encrypted"},
	{ErrCritical, "critical"},
	{ErrNoExpiry, "no_expiry"},
}

// Cause returns a short label for a log field or a metric label: "expired", "signature", "malformed", "unknown_key",
// "algorithm", "issuer", "audience", "not_yet_valid", "no_keys", "too_large", "encrypted", "critical" or "no_expiry".
// It is "" for nil and "other" for an error that does not come from [Verifier.Verify]. The set is closed, so the label
// is safe as a metric label.
func Cause(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return c.label
		}
	}
	return "other"
}
