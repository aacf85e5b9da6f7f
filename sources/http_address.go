package sources

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// unfit are lines of a header that are the fetch's own to set, or would make its answer another one than it takes it
// for.
var unfit = map[string]bool{
	"Accept-Encoding": true, "Connection": true, "Content-Length": true, "Expect": true, "If-Match": true,
	"If-Modified-Since": true, "If-None-Match": true, "If-Range": true, "If-Unmodified-Since": true, "Keep-Alive": true,
	"Proxy-Connection": true, "Range": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// parseAddress returns the parts of an address. The error has none of them: net/url's quotes all, secrets too.
func parseAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("the URL cannot be parsed, want one such as https://flags.example/flags.json")
	case strings.Contains(text, "#"):
		// What is behind it is not sent: a secret with a # in it was meant, and what is before may be half of it.
		return nil, errors.New("the URL has a fragment, want none; a # in a secret is written as %23")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the URL has the wrong scheme, want http or https")
	case u.Hostname() == "":
		return nil, errors.New("the URL has no host, want one such as https://flags.example/flags.json")
	}
	return u, nil
}

// publicAddress is an address without its secrets.
func publicAddress(u *url.URL) string {
	text := originOf(u) + u.EscapedPath()
	if u.RawQuery != "" || u.ForceQuery {
		text += "?…"
	}
	return text
}

// originOf is scheme, host and port as written.
func originOf(u *url.URL) string {
	return u.Scheme + "://" + u.Host
}

// sameOrigin tells whether two addresses are of one scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		switch {
		case u.Port() != "":
			return u.Port()
		case u.Scheme == "https":
			return "443"
		default:
			return "80"
		}
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// check returns the fault that every fetch would come to, or nil.
func (h *HTTP) check() *fault {
	if _, err := parseAddress(h.URL); err != nil {
		return newFault(err.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(h.Header)) {
		if !isToken(name) {
			return newFault("a header line has a name that none can have, want one such as Authorization") // It may be a secret.
		}
		if unfit[http.CanonicalHeaderKey(name)] {
			return newFault(fmt.Sprintf("header line %q cannot be sent along, want it left out", name))
		}
		for _, value := range h.Header[name] {
			if strings.ContainsFunc(value, func(c rune) bool { return (c < ' ' && c != '\t') || c == 0x7f }) {
				return newFault(fmt.Sprintf("header line %q: the value holds control characters, want none", name))
			}
		}
	}
	return nil
}

// isToken tells whether a text can be the name of a header line: RFC 9110, 5.6.2.
func isToken(text string) bool {
	for _, c := range []byte(text) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return text != ""
}
