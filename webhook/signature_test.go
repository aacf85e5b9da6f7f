package webhook

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSignatureOfTheSpecification checks the vector that the libraries of Standard Webhooks are tested with.
func TestSignatureOfTheSpecification(t *testing.T) {
	h := http.Header{}
	k, err := keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	sign(h, k, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got, want := h.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerify(t *testing.T) {
	const secret, id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "evt_1"
	now := time.Unix(1_800_000_000, 0)
	body := []byte(`{"a":1}`)
	signed := func(secret string) http.Header {
		h := http.Header{}
		k, err := keys(secret)
		if err != nil {
			t.Fatal(err)
		}
		sign(h, k, id, now, body)
		return h
	}
	with := func(name, value string) http.Header {
		h := signed(secret)
		h.Set(name, value)
		return h
	}
	twice := signed(secret)
	twice.Add("Webhook-Id", "evt_2")
	good := signed(secret).Get("webhook-signature")
	// What "id.timestamp.body" could also be read as.
	moved := http.Header{}
	moved.Set("webhook-id", "evt_1.1800000000")
	moved.Set("webhook-timestamp", "1800000000")
	moved.Set("webhook-signature", good)
	for _, c := range []struct {
		name   string
		secret string
		header http.Header
		body   string
		age    time.Duration
		want   string // "": passes.
	}{
		{name: "genuine", header: signed(secret)},
		{name: "raw secret", secret: "a plain secret", header: signed("secret")},
		{name: "rotated at the sender", header: signed("other " + secret)},
		{name: "rotated at the receiver", secret: "whsec_b2xk " + secret, header: signed(secret)},
		{name: "signature of another version before it", header: with("webhook-signature", "v2,abc v1a,xyz "+good)},
		{name: "at the tolerance", header: signed(secret), age: DefaultTolerance},
		{name: "from a clock that is ahead", header: signed(secret), age: -DefaultTolerance},
		{name: "forged body", header: signed(secret), body: `{"a":2}`, want: "webhook-signature: none matches"},
		{name: "cut body", header: signed(secret), body: `{"a":1`, want: "webhook-signature: none matches"},
		{name: "empty body", header: signed(secret), body: " ", want: "webhook-signature: none matches"},
		{name: "another secret", header: signed("other"), want: "webhook-signature: none matches"},
		{name: "the base64 of a secret as a raw one", header: signed(strings.TrimPrefix(secret, "whsec_")), want: "webhook-signature: none matches"},
		{name: "replayed later", header: signed(secret), age: DefaultTolerance + time.Second, want: "webhook-timestamp: is 301 seconds old, want at most 5m0s"},
		{name: "replayed with a new time", header: with("webhook-timestamp", "1800000301"), age: 301 * time.Second, want: "webhook-signature: none matches"},
		{name: "replayed under another id", header: with("webhook-id", "evt_2"), want: "webhook-signature: none matches"},
		{name: "from the future", header: signed(secret), age: -DefaultTolerance - time.Second, want: "webhook-timestamp: is 301 seconds in the future, want at most 5m0s"},
		{name: "cut signature", header: with("webhook-signature", good[:len(good)-1]), want: "webhook-signature: none matches"},
		{name: "prefix of a signature", header: with("webhook-signature", "v1,"), want: "webhook-signature: none matches"},
		{name: "signature of another version", header: with("webhook-signature", "v2"+good[2:]), want: "webhook-signature: none matches"},
		{name: "joined by a comma", header: with("webhook-signature", "v1,abc,"+good), want: "webhook-signature: none matches"},
		{name: "no signature", header: with("webhook-signature", ""), want: "webhook-signature: 1 headers, want 1 that is not empty"},
		{name: "only spaces", header: with("webhook-signature", "   "), want: "webhook-signature: none matches"},
		{name: "too many signatures", header: with("webhook-signature", strings.Repeat("v1,x ", 40)), want: "webhook-signature: 40 signatures, want at most 32"},
		{name: "no headers", header: http.Header{}, want: "webhook-id: 0 headers, want 1 that is not empty"},
		{name: "two ids", header: twice, want: "webhook-id: 2 headers, want 1 that is not empty"},
		{name: "moved borders", header: moved, body: "x", want: "webhook-id: has a dot, want none"},
		{name: "time with a plus", header: with("webhook-timestamp", "+1800000000"), want: "webhook-timestamp: want whole seconds since 1970"},
		{name: "time with a fraction", header: with("webhook-timestamp", "1800000000.0"), want: "webhook-timestamp: want whole seconds since 1970"},
		{name: "no time", header: with("webhook-timestamp", "soon"), want: "webhook-timestamp: want whole seconds since 1970"},
		{name: "the end of times", header: with("webhook-timestamp", "9223372036854775807"), want: "webhook-timestamp: is 9223372035054775807 seconds in the future, want at most 5m0s"},
		{name: "no secret", secret: " ", header: signed(secret), want: "secret: is empty"},
		{name: "bad secret", secret: "whsec_!", header: signed(secret), want: "secret: number 1: is no base64 behind whsec_, want the output of openssl rand -base64 32 there"},
		{name: "empty secret", secret: "a whsec_", header: signed(secret), want: "secret: number 2: is empty behind whsec_, want the output of openssl rand -base64 32 there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, b := secret, body
			if c.secret != "" {
				s = c.secret
			}
			if c.body != "" {
				b = []byte(c.body)
			}
			err := Verify(s, c.header, b, now.Add(c.age), 0)
			if got := errorText(err); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if err := Verify(secret, signed(secret), body, now.Add(2*time.Second), time.Second); err == nil {
		t.Error("a tolerance of 1 s is not heeded")
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// FuzzVerify has nothing pass that was not signed, and everything that was.
func FuzzVerify(f *testing.F) {
	f.Add("secret", "id", "1800000000", "v1,abc", []byte("{}"), int64(1_800_000_000))
	f.Add("whsec_c2VjcmV0", "evt.1", "0", "v1, v1,v1", []byte(nil), int64(0))
	f.Add("whsec_", "", "-1", "", []byte("x"), int64(-1))
	f.Fuzz(func(t *testing.T, secret, id, timestamp, signatures string, body []byte, seconds int64) {
		now := time.Unix(seconds, 0)
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", timestamp)
		h.Set("webhook-signature", signatures)
		if Verify(secret, h, body, now, 0) == nil {
			t.Fatal("passes")
		}
		k, err := keys(secret)
		if err != nil || !isID(id) || seconds < 0 {
			return
		}
		sign(h, k, id, now, body)
		if err := Verify(secret, h, body, now, time.Hour); err != nil {
			t.Fatalf("signed, but %v", err)
		}
		if Verify(secret, h, append(body, 'x'), now, time.Hour) == nil {
			t.Fatal("passes with a longer body")
		}
		other := "whsec_" + base64.StdEncoding.EncodeToString(append([]byte("other "), k[0]...))
		if Verify(other, h, body, now, time.Hour) == nil {
			t.Fatal("passes with another secret")
		}
	})
}
