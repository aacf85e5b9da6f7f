package token

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// lastSecond is 9999-12-31T23:59:59Z. A date beyond it is a mistake (milliseconds, mostly) that would make a token
// good for ever, so it is refused rather than believed.
const lastSecond = 253402300799

// window is the time in which claims hold: from start on, until just before end. A zero start or end is open.
type window struct {
	start, end time.Time
}

// decodeClaims returns the one JSON object that the claims must be, with numbers as [json.Number], or ErrMalformed. Of
// a name that stands twice the last value counts (RFC 7519 section 4).
func decodeClaims(encoded string) (map[string]any, error) {
	decoded, err := segment.DecodeString(encoded)
	if err != nil || !utf8.Valid(decoded) {
		return nil, ErrMalformed
	}
	decoder := json.NewDecoder(bytes.NewReader(decoded))
	decoder.UseNumber()
	var claims map[string]any
	if err := decoder.Decode(&claims); err != nil || claims == nil {
		return nil, ErrMalformed
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, ErrMalformed // something follows the object
	}
	return claims, nil
}

// rules are the checks of the registered claims of RFC 7519 section 4.1.
type rules struct {
	issuer        string
	audience      []string
	requireExpiry bool
	leeway        time.Duration
}

// check returns the window in which the claims hold, leeway included, or the reason for which they do not hold now.
// golang-jwt's own validator is not used: it takes an exp of 0 for none, and converts dates out of range to int64 with
// a result that depends on the processor.
func (r *rules) check(claims map[string]any, now time.Time) (window, error) {
	var w window
	expiry, hasExpiry, err := date(claims, "exp")
	if err != nil {
		return window{}, err
	}
	notBefore, hasNotBefore, err := date(claims, "nbf")
	if err != nil {
		return window{}, err
	}
	issued, hasIssued, err := date(claims, "iat")
	if err != nil {
		return window{}, err
	}

	switch {
	case hasExpiry:
		w.end = expiry.Add(r.leeway)
	case r.requireExpiry:
		return window{}, ErrNoExpiry
	}
	if hasNotBefore {
		w.start = notBefore.Add(-r.leeway)
	}
	if hasIssued {
		if start := issued.Add(-r.leeway); !hasNotBefore || start.After(w.start) {
			w.start = start
		}
	}
	if w.ended(now) {
		return window{}, ErrExpired
	}
	if w.ahead(now) {
		return window{}, ErrNotYetValid
	}

	if r.issuer != "" {
		if err := checkIssuer(claims, r.issuer); err != nil {
			return window{}, err
		}
	}
	if len(r.audience) > 0 {
		if err := checkAudience(claims, r.audience); err != nil {
			return window{}, err
		}
	}
	return w, nil
}

func (w *window) ended(now time.Time) bool { return !w.end.IsZero() && !now.Before(w.end) }

func (w *window) ahead(now time.Time) bool { return now.Before(w.start) }

func checkIssuer(claims map[string]any, want string) error {
	value, ok := claims["iss"]
	if !ok {
		return ErrIssuer
	}
	issuer, ok := value.(string)
	if !ok {
		return ErrMalformed
	}
	if issuer != want {
		return ErrIssuer
	}
	return nil
}

// checkAudience takes aud as a string or as a list of strings.
func checkAudience(claims map[string]any, want []string) error {
	value, ok := claims["aud"]
	if !ok {
		return ErrAudience
	}
	switch audience := value.(type) {
	case string:
		if slices.Contains(want, audience) {
			return nil
		}
	case []any:
		found := false
		for _, one := range audience {
			name, ok := one.(string)
			if !ok {
				return ErrMalformed
			}
			found = found || slices.Contains(want, name)
		}
		if found {
			return nil
		}
	default:
		return ErrMalformed
	}
	return ErrAudience
}

// date reads a NumericDate: seconds since 1970, with or without a fraction. It reports false when there is none and
// returns ErrMalformed for anything but a number within the years that [lastSecond] allows, before 1970 too.
func date(claims map[string]any, name string) (time.Time, bool, error) {
	value, ok := claims[name]
	if !ok {
		return time.Time{}, false, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, false, ErrMalformed
	}
	if seconds, err := strconv.ParseInt(string(number), 10, 64); err == nil {
		if seconds < -lastSecond || seconds > lastSecond {
			return time.Time{}, false, ErrMalformed
		}
		return time.Unix(seconds, 0), true, nil
	}
	seconds, err := number.Float64()
	if err != nil || math.Abs(seconds) > lastSecond {
		return time.Time{}, false, ErrMalformed
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, nil
}
