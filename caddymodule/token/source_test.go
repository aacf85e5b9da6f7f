package token

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// eventually waits for something that a goroutine and the kernel do in real time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestRealServer(t *testing.T) {
	var body atomic.Pointer[[]byte]
	var fetches atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		_, _ = w.Write(*body.Load())
	}))
	defer server.Close()
	set := jwks(t, jwk(t, rsaPair(), "r1", "", ""))
	body.Store(&set)
	v := newSubject(t, Config{JWKSURL: server.URL})
	v.Start(t.Context())
	defer v.Stop()
	wantVerify(t, v, now, sign(t, "RS256", "r1", `{"sub":"ann"}`), "ann", nil)

	set = jwks(t, jwk(t, rsaPair(), "r1", "", ""), jwk(t, ed25519Pair(), "ed", "", ""))
	body.Store(&set)
	raw := sign(t, "EdDSA", "ed", `{"sub":"bob"}`)
	eventually(t, "the new key is known", func() bool {
		got, err := v.Verify(now, raw)
		return err == nil && got == "bob"
	})
	if fetches.Load() != 2 {
		t.Errorf("%d fetches, want 2", fetches.Load())
	}
}

func TestRealOutage(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000") // and closes before that
		_, _ = w.Write([]byte(`{"keys":[`))
	}))
	v := newSubject(t, Config{JWKSURL: server.URL + "/?key=hunter2"})
	v.Start(t.Context())
	v.Stop()
	if got := v.Health().LastError; got != "jwt: jwks: reading: unexpected EOF" {
		t.Errorf("got %q", got)
	}
	server.Close()
	v.Start(t.Context())
	v.Stop()
	if got := v.Health().LastError; !strings.Contains(got, "connection refused") || strings.Contains(got, "hunter2") {
		t.Errorf("got %q", got)
	}
}

func TestNoRedirectToPlainHTTP(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Error("the plain server was asked")
	}))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	client := newURLSource("", nil).client
	client.Transport = secure.Client().Transport
	s := &urlSource{address: secure.URL, client: client}
	if _, _, err := s.load(t.Context()); err == nil || err.Error() != "jwt: jwks: fetching: redirected from https to http" {
		t.Errorf("got %v", err)
	}
	loop := httptest.NewServer(http.RedirectHandler("/", http.StatusFound))
	defer loop.Close()
	s = newURLSource(loop.URL, nil)
	if _, _, err := s.load(t.Context()); err == nil || err.Error() != "jwt: jwks: fetching: redirected more than 5 times" {
		t.Errorf("got %v", err)
	}
}

func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := writeFile(t, jwks(t, jwk(t, rsaPair(), "r1", "", "")))
		replace := func(content []byte) {
			t.Helper()
			if err := os.WriteFile(path+".new", content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		v := newSubject(t, Config{JWKSFile: path})
		first, second := sign(t, "RS256", "r1", `{"sub":"ann"}`), sign(t, "ES256", "e1", `{"sub":"bob"}`)
		wantVerify(t, v, now, first, "ann", nil) // before Start
		v.Start(t.Context())
		defer v.Stop()
		read := v.Health().LastRefresh
		time.Sleep(time.Minute)
		if h := v.Health(); !h.LastRefresh.Equal(read) || time.Since(h.LastAttempt) > 3*time.Second {
			t.Errorf("got %+v, want it looked at and not read", h)
		}

		replace([]byte(`{"keys":`))
		if h := v.Health(); h.LastError != `jwt: jwks: not a key set, want JSON with "keys"` || h.Keys != 1 {
			t.Errorf("got %+v", h)
		}
		wantVerify(t, v, now, first, "ann", nil)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if h := v.Health(); !strings.HasSuffix(h.LastError, "no such file or directory") || h.Keys != 1 {
			t.Errorf("got %+v", h)
		}
		wantVerify(t, v, now, first, "ann", nil)

		replace(jwks(t, jwk(t, p256Pair(), "e1", "", ""), jwk(t, rsaShort(), "s", "", "")))
		wantVerify(t, v, now, first, "", ErrUnknownKey)
		wantVerify(t, v, now, second, "bob", nil)
		if h := v.Health(); h.LastError != "" || h.Keys != 1 || len(h.Skipped) != 1 {
			t.Errorf("got %+v", h)
		}
	})
}
