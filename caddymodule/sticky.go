package caddymodule

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// stickyCookie holds an anonymous person's targeting key: 26 letters and
// digits of crypto/rand, worth nothing but a stable place in the rollouts.
const (
	stickyCookie = "feature_flags_id"
	stickyAge    = 365 * 24 * time.Hour
	stickyLength = 26
)

// stickyID returns the id that the client sent, or a new one with the
// Set-Cookie line that gives it to the client.
func stickyID(r *http.Request, secure bool) (id, setCookie string) {
	if id := readSticky(r); id != "" {
		return id, ""
	}
	id = rand.Text()
	c := http.Cookie{
		Name: stickyCookie, Value: id, Path: "/", MaxAge: int(stickyAge / time.Second),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: secure,
	}
	return id, c.String()
}

// readSticky returns the id that the client sent, "" when there is none of our
// making: the form is checked, since the id becomes a key in memory.
func readSticky(r *http.Request) string {
	v := cookieValue(r, stickyCookie)
	if len(v) != stickyLength || strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return ""
	}
	return v
}

// cookieValue finds one cookie without parsing the others.
func cookieValue(r *http.Request, name string) string {
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var part string
			part, line, _ = strings.Cut(line, ";")
			key, value, found := strings.Cut(strings.TrimSpace(part), "=")
			if found && key == name {
				return strings.Trim(value, `"`)
			}
		}
	}
	return ""
}

// isSecure tells whether the client speaks TLS, to us or to a proxy that the
// server trusts.
func isSecure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}
