package tests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const stickySite = site + `
	feature_flags {
		context {
			user_id header X-User-ID
			user_id sticky
		}
	}
	reverse_proxy UP
}
`

const half = `{"half": {"active": true, "percentage_rollout": 50}}`

// sticky returns the cookies of ours that an answer sets.
func sticky(t *testing.T, r reply) (out []*http.Cookie) {
	t.Helper()
	for _, line := range r.header["Set-Cookie"] {
		if !strings.HasPrefix(line, "feature_flags_id") {
			continue
		}
		c, err := http.ParseSetCookie(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, c)
	}
	return out
}

var idForm = regexp.MustCompile(`^[A-Z2-7]{26}$`)

func TestStickyCookie(t *testing.T) {
	c := serve(t, stickySite, half, map[string]string{"UP": host(echo(t, "app"))})
	ids, seen := map[string]bool{}, map[string]int{}
	for range 40 {
		r := c.get("/")
		set := sticky(t, r)
		if len(set) != 1 {
			t.Fatalf("Set-Cookie %q, want one id", r.header["Set-Cookie"])
		}
		k := set[0]
		if !idForm.MatchString(k.Value) || ids[k.Value] || k.Path != "/" || k.Domain != "" || !k.HttpOnly || k.Secure || k.SameSite != http.SameSiteLaxMode || k.MaxAge != 365*24*3600 {
			t.Fatalf("%s: want a fresh id, Path=/, HttpOnly, SameSite=Lax, a year, and not Secure over plain HTTP", r.header["Set-Cookie"])
		}
		ids[k.Value] = true
		first := r.echoed(t).Header.Get("X-Feature-Half")
		seen[first]++
		for range 3 {
			again := c.get("/other/path", "Cookie", "a=b; feature_flags_id="+k.Value)
			if got := again.echoed(t).Header.Get("X-Feature-Half"); got != first || len(sticky(t, again)) > 0 {
				t.Fatalf("the same person got %s, then %s; Set-Cookie %q", first, got, again.header["Set-Cookie"])
			}
		}
	}
	if seen["on"] == 0 || seen["off"] == 0 {
		t.Errorf("40 people got %v, want both", seen)
	}
}

// What is no id of ours is replaced, and never becomes a key.
func TestStickyForged(t *testing.T) {
	c := serve(t, stickySite, `{"half": {"active": true, "percentage_rollout": 50}, "listed": {"active": true, "users": ["admin", "ADMIN"]}}`, map[string]string{"UP": host(echo(t, "app"))})
	for _, forged := range []string{
		"admin", "ADMIN", "", strings.Repeat("A", 25), strings.Repeat("A", 27), strings.Repeat("a", 26), strings.Repeat("1", 26),
		strings.Repeat("A", 25) + "=", strings.Repeat("A", 5000), "{env.HOME}AAAAAAAAAAAAAAAA", `"` + strings.Repeat("A", 24) + `"`,
	} {
		r := c.get("/", "Cookie", "feature_flags_id="+forged)
		set := sticky(t, r)
		if len(set) != 1 || !idForm.MatchString(set[0].Value) || set[0].Value == forged {
			t.Errorf("%.40q: Set-Cookie %q, want an id of ours", forged, r.header["Set-Cookie"])
		}
		if got := r.echoed(t).Header.Get("X-Feature-Listed"); got != "off" {
			t.Errorf("%.40q: became a targeting key", forged)
		}
	}
}

// Who is known otherwise gets no cookie, and one that is there is not used.
func TestStickyNotNeeded(t *testing.T) {
	c := serve(t, stickySite, half, map[string]string{"UP": host(echo(t, "app"))})
	want := c.get("/", "X-User-ID", "u1").echoed(t).Header.Get("X-Feature-Half")
	for range 20 {
		id := sticky(t, c.get("/"))[0].Value
		r := c.get("/", "X-User-ID", "u1", "Cookie", "feature_flags_id="+id)
		if got := r.echoed(t).Header.Get("X-Feature-Half"); got != want || len(sticky(t, r)) > 0 {
			t.Fatalf("u1 got %s and then %s; Set-Cookie %q", want, got, r.header["Set-Cookie"])
		}
	}
}

// The cookie comes with whatever answer there is.
func TestStickyWithErrors(t *testing.T) {
	for name, use := range map[string]string{
		"refused": "reverse_proxy DEAD", "500": "respond 500", "error": "error 503", "404": "respond 404", "304": "respond 304",
		"nothing": "misbehave nothing", "a handler that sets others": "header Set-Cookie other=1\nrespond ok",
		"caught": "error 503\nhandle_errors {\nrespond sorry\n}",
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, strings.Replace(stickySite, "reverse_proxy UP", use, 1), half, map[string]string{"DEAD": freeAddress(t)})
			if r := c.get("/"); len(sticky(t, r)) != 1 {
				t.Errorf("status %d, Set-Cookie %q, want one id", r.status, r.header["Set-Cookie"])
			}
		})
	}
}

// Secure is for who speaks TLS, to us or to a proxy that the server trusts.
func TestStickySecure(t *testing.T) {
	up := map[string]string{"UP": host(echo(t, "app"))}
	t.Run("an untrusted client says https", func(t *testing.T) {
		c := serve(t, stickySite, half, up)
		if set := sticky(t, c.get("/", "X-Forwarded-Proto", "https")); len(set) != 1 || set[0].Secure {
			t.Errorf("%v, want it not Secure", set)
		}
	})
	t.Run("a trusted proxy", func(t *testing.T) {
		up["SERVERS"] = "trusted_proxies static 127.0.0.0/8"
		c := serve(t, stickySite, half, up)
		for proto, secure := range map[string]bool{"https": true, "HTTPS": true, "http": false, "": false} {
			if set := sticky(t, c.get("/", "X-Forwarded-Proto", proto)); len(set) != 1 || set[0].Secure != secure {
				t.Errorf("X-Forwarded-Proto: %q: %v, want Secure: %t", proto, set, secure)
			}
		}
	})
	t.Run("TLS", func(t *testing.T) {
		certificate, key := selfSigned(t)
		dir := t.TempDir()
		c := &instance{t: t, dir: dir}
		c.write("cert.pem", certificate)
		c.write("key.pem", key)
		secure := strings.Replace(strings.Replace(stickySite, "http://:0", "https://:0", 1), "log site", "tls "+dir+"/cert.pem "+dir+"/key.pem", 1)
		c = serve(t, secure, half, map[string]string{"UP": up["UP"], "SERVERS": ""})
		via := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}}, Timeout: 10 * time.Second}
		t.Cleanup(via.CloseIdleConnections)
		req, _ := http.NewRequest("GET", strings.Replace(c.url(0), "http:", "https:", 1), nil)
		r := do(t, via, req)
		if set := sticky(t, r); len(set) != 1 || !set[0].Secure || !slices.Contains([]int{200}, r.status) {
			t.Errorf("status %d, %v, want it Secure", r.status, set)
		}
	})
}

// selfSigned makes a certificate for this machine.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}
