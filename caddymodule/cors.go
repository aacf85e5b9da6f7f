package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// origins are those whose pages may ask from elsewhere.
type origins []string

func (o origins) check() error {
	for _, origin := range o {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin || origin != strings.ToLower(origin) || strings.Contains(origin, "*") {
			return fmt.Errorf("cors: want an origin as https://app.example, in lower case and without wildcards, or *; got %q", origin)
		}
		if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
			return fmt.Errorf("cors: browsers leave out the port that the scheme has by itself: want %s://%s, got %q", u.Scheme, u.Hostname(), origin)
		}
		if strings.ContainsFunc(origin, func(c rune) bool { return c > unicode.MaxASCII }) {
			return fmt.Errorf("cors: browsers spell names in ASCII: want https://xn--bcher-kva.example for https://bücher.example; got %q", origin)
		}
	}
	return nil
}

// allow tells browsers which pages of other origins may read the answer.
func (o origins) allow(h http.Header, r *http.Request, methods string) {
	if len(o) == 0 {
		return
	}
	origin := r.Header.Get("Origin")
	anybody := slices.Contains(o, "*")
	if !anybody {
		h.Add("Vary", "Origin")
	}
	switch {
	case origin == "":
		return
	case slices.Contains(o, origin):
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	case anybody:
		h.Set("Access-Control-Allow-Origin", "*")
	default:
		return
	}
	h.Set("Access-Control-Expose-Headers", "ETag, Retry-After")
	if r.Method != http.MethodOptions {
		return
	}
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Max-Age", "86400")
	if names := r.Header.Get("Access-Control-Request-Headers"); names != "" {
		h.Set("Access-Control-Allow-Headers", names)
	}
}

// isForeign tells a request that a page of an origin which is not listed has made.
// Programs that are no browsers say nothing of origins.
func (o origins) isForeign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin != "" && (slices.Contains(o, origin) || slices.Contains(o, "*")) {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return true
	case "same-origin", "none":
		return false
	}
	if origin == "" {
		return false
	}
	_, host, _ := strings.Cut(origin, "://")
	return !strings.EqualFold(host, r.Host)
}
