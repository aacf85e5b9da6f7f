package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers of Standard Webhooks, in the form of http.Header.
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
const (
	idHeader        = "Webhook-Id"
	timestampHeader = "Webhook-Timestamp"
	signatureHeader = "Webhook-Signature"
)

const (
	secretPrefix    = "whsec_"
	signaturePrefix = "v1,"
	maxSignatures   = 32
)

// DefaultTolerance is how far the time of a request may be from now for [Verify].
const DefaultTolerance = 5 * time.Minute

// Verify checks that a request was signed with a secret, by the headers webhook-id, webhook-timestamp and
// webhook-signature of Standard Webhooks, no longer than tolerance before or after now; 0 or less: [DefaultTolerance].
// Body is the body as it came, before any decoding. secret may be several, separated by spaces: one has to match. Those
// with the prefix whsec_ are base64, others are taken as they are.
//
// A request that somebody recorded passes again while it is young. Who must not act on it twice keeps the webhook-id of
// what it accepted for twice the tolerance, and refuses to see one again; the sender itself repeats requests under the
// same id until one is answered with a status of 200 to 299.
//
// Signatures are compared in constant time. The error says what is wrong, with no part of a secret or signature.
func Verify(secret string, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	if tolerance <= 0 {
		tolerance = DefaultTolerance
	}
	secrets, err := keys(secret)
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	var fields [3]string
	for i, name := range []string{idHeader, timestampHeader, signatureHeader} {
		// Several would leave it open which of them others of the same request go by.
		if values := header.Values(name); len(values) != 1 || values[0] == "" {
			return fmt.Errorf("%s: %d headers, want 1 that is not empty", strings.ToLower(name), len(values))
		}
		fields[i] = header.Get(name)
	}
	id, timestamp, signatures := fields[0], fields[1], fields[2]
	if strings.Contains(id, ".") {
		// "a.1" at "2" and "a" at "1" with a body that begins with "2." have the same signature.
		return errors.New("webhook-id: has a dot, want none")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != timestamp || seconds < 0 {
		return errors.New("webhook-timestamp: want whole seconds since 1970")
	}
	switch age := now.Unix() - seconds; {
	case age > int64(tolerance/time.Second):
		return fmt.Errorf("webhook-timestamp: is %d seconds old, want at most %v", age, tolerance)
	case -age > int64(tolerance/time.Second):
		return fmt.Errorf("webhook-timestamp: is %d seconds in the future, want at most %v", -age, tolerance)
	}
	given := strings.Fields(signatures)
	if len(given) > maxSignatures {
		return fmt.Errorf("webhook-signature: %d signatures, want at most %d", len(given), maxSignatures)
	}
	matched := false
	for _, key := range secrets {
		want := []byte(signature(key, id, timestamp, body))
		for _, s := range given {
			matched = hmac.Equal([]byte(s), want) || matched
		}
	}
	if !matched {
		return errors.New("webhook-signature: none matches")
	}
	return nil
}

// sign sets the headers that [Verify] checks; without keys those but the signature.
func sign(h http.Header, keys [][]byte, id string, at time.Time, body []byte) {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	h.Set(idHeader, id)
	h.Set(timestampHeader, timestamp)
	var signatures []string
	for _, key := range keys {
		signatures = append(signatures, signature(key, id, timestamp, body))
	}
	if len(signatures) > 0 {
		h.Set(signatureHeader, strings.Join(signatures, " "))
	}
}

func signature(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return signaturePrefix + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// keys are the bytes of one or several secrets. The error shows nothing of them.
func keys(secret string) ([][]byte, error) {
	var all [][]byte
	for i, s := range strings.Fields(secret) {
		key := []byte(s)
		if encoded, ok := strings.CutPrefix(s, secretPrefix); ok {
			var err error
			if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, fmt.Errorf("number %d: is no base64 behind %s, want the output of openssl rand -base64 32 there", i+1, secretPrefix)
			}
		}
		if len(key) == 0 {
			return nil, fmt.Errorf("number %d: is empty behind %s, want the output of openssl rand -base64 32 there", i+1, secretPrefix)
		}
		all = append(all, key)
	}
	if len(all) == 0 {
		return nil, errors.New("is empty")
	}
	if len(all) > maxSignatures {
		return nil, fmt.Errorf("%d secrets, want at most %d", len(all), maxSignatures)
	}
	return all, nil
}
