package token

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a JWKS server within a synctest bubble, where a real one would stop its clock.
type fake struct {
	mu      sync.Mutex
	answer  func(ctx context.Context) (status int, body io.Reader, err error)
	fetches []time.Time
}

func (f *fake) RoundTrip(request *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.fetches = append(f.fetches, time.Now())
	answer := f.answer
	f.mu.Unlock()
	status, body, err := answer(request.Context())
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(body), Header: http.Header{}, Request: request}, nil
}

func (f *fake) set(status int, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = func(context.Context) (int, io.Reader, error) { return status, bytes.NewReader(body), nil }
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.fetches)
}

func (f *fake) config() Config {
	return Config{JWKSURL: "https://issuer.example/jwks?secret=hunter2", HTTPClient: &http.Client{Transport: f}}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fake{}
		server.set(200, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
		v := newSubject(t, server.config())
		first := sign(t, "RS256", "r1", `{"sub":"ann"}`)
		second := sign(t, "ES256", "e1", `{"sub":"bob"}`)
		wantVerify(t, v, now, first, "", ErrNoKeys)
		v.Start(t.Context())
		defer v.Stop()
		wantVerify(t, v, now, first, "ann", nil)

		// A key more: asked for by its first token, and nothing is forgotten.
		server.set(200, jwks(t, jwk(t, rsaPair(), "r1", "", ""), jwk(t, p256Pair(), "e1", "", "")))
		wantVerify(t, v, now, second, "", ErrUnknownKey)
		synctest.Wait()
		wantVerify(t, v, now, second, "bob", nil)
		if kept := v.Health().Cached; kept != 2 {
			t.Errorf("%d tokens cached after a key was added, want 2", kept)
		}

		// A key less: with the next regular refresh its tokens fail, cached ones too.
		server.set(200, jwks(t, jwk(t, p256Pair(), "e1", "", "")))
		wantVerify(t, v, now, first, "ann", nil)
		time.Sleep(6 * time.Minute)
		if kept := v.Health().Cached; kept != 0 {
			t.Errorf("%d tokens cached after a key was removed, want 0", kept)
		}
		wantVerify(t, v, now, first, "", ErrUnknownKey)
		wantVerify(t, v, now, second, "bob", nil)
		// Another key under the same kid.
		server.set(200, jwks(t, jwk(t, newECDSA(elliptic.P256()), "e1", "", "")))
		time.Sleep(6 * time.Minute)
		wantVerify(t, v, now, second, "", ErrSignature)
	})
}

// A token whose key goes away while it is being verified is cached after the purge, and yet not served again.
func TestRotationDuringVerify(t *testing.T) {
	path := writeFile(t, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
	var v *Verifier[string]
	v, err := New(Config{JWKSFile: path}, func(claims map[string]any) string {
		keys, _, err := parseJWKS(jwks(t, jwk(t, p256Pair(), "e1", "", "")))
		if err != nil {
			t.Fatal(err)
		}
		if _, purged := v.ring.swap(keys); purged {
			v.purge()
		}
		return subject(claims)
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := sign(t, "RS256", "r1", `{"sub":"ann"}`)
	wantVerify(t, v, now, raw, "ann", nil)
	if kept := v.Health().Cached; kept != 1 {
		t.Fatalf("%d tokens cached, want 1", kept)
	}
	wantVerify(t, v, now, raw, "", ErrUnknownKey)
}

func TestUnknownKidsFetchOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fake{}
		server.set(200, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
		v := newSubject(t, server.config())
		v.Start(t.Context())
		defer v.Stop()
		burst := func() {
			t.Helper()
			for i := range 50 {
				raw := signWith(t, "ES256", p256Pair(), fmt.Sprintf("unknown-%d", i), `{"sub":"eve"}`)
				wantVerify(t, v, now, raw, "", ErrUnknownKey)
				synctest.Wait()
			}
		}
		for want := 2; want < 5; want++ { // 1 by Start
			burst()
			time.Sleep(askEvery - time.Millisecond)
			burst()
			if got := server.count(); got != want {
				t.Errorf("%d fetches, want %d", got, want)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestBadAnswersKeepTheKeys(t *testing.T) {
	good := jwks(t, jwk(t, rsaPair(), "r1", "", ""))
	answer := func(status int, body string) func(context.Context) (int, io.Reader, error) {
		return func(context.Context) (int, io.Reader, error) { return status, strings.NewReader(body), nil }
	}
	tests := []struct {
		name   string
		answer func(context.Context) (int, io.Reader, error)
		want   string
	}{
		{"HTML", answer(200, "<html>Sign in"), `jwt: jwks: not a key set, want JSON with "keys"`},
		{"500", answer(500, string(good)), `jwt: jwks: answer has status 500, want 200`},
		{"304", answer(304, ""), `jwt: jwks: answer has status 304, want 200`},
		{"huge", answer(200, `{"keys":["`+strings.Repeat("x", maxBody)+`"]}`), `jwt: jwks: more than 1048576 bytes, want a key set`},
		{"truncated", answer(200, string(good[:40])), `jwt: jwks: not a key set, want JSON with "keys"`},
		{"empty", answer(200, ""), `jwt: jwks: not a key set, want JSON with "keys"`},
		{"empty set", answer(200, `{"keys":[]}`), `jwt: jwks: key set is empty, want at least one key`},
		{"no usable key", answer(200, `{"keys":[{"kty":"oct","k":"AA"}]}`), `jwt: jwks: key set has no usable key, want at least one ` +
			`(key 1: is a shared secret, which does not belong in a published set)`},
		{
			"down", func(context.Context) (int, io.Reader, error) { return 0, nil, errors.New("connection refused") },
			`jwt: jwks: fetching: connection refused`,
		},
		{
			"slow", func(ctx context.Context) (int, io.Reader, error) { <-ctx.Done(); return 0, nil, ctx.Err() },
			`jwt: jwks: fetching: context deadline exceeded`,
		},
		{
			"talkative", func(context.Context) (int, io.Reader, error) { return 0, nil, errors.New(strings.Repeat("é", 9999)) },
			`jwt: jwks: fetching: ` + strings.Repeat("é", 139) + "…",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &fake{}
				server.set(200, good)
				cfg := server.config()
				var told []Health
				cfg.OnChange = func(h Health) { told = append(told, h) }
				v := newSubject(t, cfg)
				v.Start(t.Context())
				raw := sign(t, "RS256", "r1", `{"sub":"ann"}`)
				wantVerify(t, v, now, raw, "ann", nil)

				server.mu.Lock()
				server.answer = test.answer
				server.mu.Unlock()
				time.Sleep(20 * time.Minute)
				h := v.Health()
				if h.LastError != test.want || h.Keys != 1 || h.Failures < 5 || h.Failures > 40 || h.Cached != 1 {
					t.Errorf("got %+v, want error %q", h, test.want)
				}
				wantVerify(t, v, now.Add(time.Hour), raw, "ann", nil)

				server.set(200, good)
				time.Sleep(2 * time.Minute)
				h = v.Health()
				if h.LastError != "" || h.Failures != 0 || time.Since(h.LastRefresh) > 2*time.Minute {
					t.Errorf("got %+v, want it well again", h)
				}
				v.Stop()
				if len(told) != 3 || told[0].LastError != "" || told[1].LastError != test.want || told[2].LastError != "" {
					t.Errorf("told of %d changes, want 3: %+v", len(told), told)
				}
			})
		})
	}
}

// An outage is asked about less and less often, whatever tokens say.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fake{}
		server.set(503, nil)
		v := newSubject(t, Config{
			JWKSURL: server.config().JWKSURL, HTTPClient: server.config().HTTPClient, Secret: secret,
			PublicKeys: [][]byte{publicPEM(t, p256Pair())},
		})
		v.Start(t.Context())
		for range 600 {
			wantVerify(t, v, now, sign(t, "EdDSA", "x", `{}`), "", ErrUnknownKey)
			wantVerify(t, v, now, sign(t, "ES256", "x", `{"sub":"ann"}`), "ann", nil)
			time.Sleep(time.Second)
		}
		v.Stop()
		for i := 1; i < len(server.fetches); i++ {
			limit := min(time.Second<<min(i-1, 20), time.Minute)
			if gap := server.fetches[i].Sub(server.fetches[i-1]); gap < limit/2 || gap > limit {
				t.Errorf("gap %d is %s, want %s to %s", i, gap, limit/2, limit)
			}
		}
		if n := server.count(); n < 15 || n > 30 {
			t.Errorf("%d fetches in 10 minutes of outage, want 15 to 30", n)
		}
	})
}

func TestDelay(t *testing.T) {
	f := func(every time.Duration, failures int, chance float64, want time.Duration) {
		t.Helper()
		if got := delay(every, failures, chance); got != want {
			t.Errorf("delay(%s, %d, %v) = %s, want %s", every, failures, chance, got, want)
		}
	}
	f(100*time.Second, 0, 0, 90*time.Second)
	f(100*time.Second, 0, 0.5, 100*time.Second)
	f(100*time.Second, 1, 0, 500*time.Millisecond)
	f(100*time.Second, 4, 0.5, 6*time.Second)
	f(100*time.Second, 7, 0, 30*time.Second)
	f(100*time.Second, 1<<40, 0, 30*time.Second)
	f(4*time.Second, 9, 0, 2*time.Second)
}

func TestStartAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fake{answer: func(ctx context.Context) (int, io.Reader, error) {
			<-ctx.Done()
			return 0, nil, ctx.Err()
		}}
		v := newSubject(t, server.config())
		v.Stop()
		took := func(want time.Duration, f func()) {
			t.Helper()
			began := time.Now()
			if f(); time.Since(began) != want {
				t.Errorf("took %s, want %s", time.Since(began), want)
			}
		}
		took(startWait, func() { v.Start(t.Context()) })
		took(0, func() { v.Start(t.Context()) })
		took(0, v.Stop) // in the middle of a fetch
		took(0, v.Stop)
		if h := v.Health(); h.Failures != 0 || server.count() != 1 {
			t.Errorf("got %+v after %d fetches, want no failure after 1", h, server.count())
		}
		wantVerify(t, v, now, sign(t, "RS256", "r1", `{}`), "", ErrNoKeys)

		server.set(200, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
		ctx, cancel := context.WithCancel(t.Context())
		took(0, func() { v.Start(ctx) })
		wantVerify(t, v, now, sign(t, "RS256", "r1", `{"sub":"ann"}`), "ann", nil)
		cancel()
		synctest.Wait()
		time.Sleep(time.Hour)
		if server.count() != 2 {
			t.Errorf("%d fetches, want none after ctx is done", server.count())
		}
		took(0, v.Stop)

		var group sync.WaitGroup // the race detector looks on
		for range 8 {
			group.Go(func() { v.Start(t.Context()) })
			group.Go(v.Stop)
		}
		group.Wait()
		v.Stop()
		plain := newSubject(t, Config{Secret: secret})
		took(0, func() { plain.Start(t.Context()) })
		plain.Stop()
	})
}
