package sources

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// minSecretPart is the shortest part of a header's value that is taken for a secret by itself: of session=1f30a2 the
// latter. Shorter ones would be found in every text.
const minSecretPart = 4

// secrets are what must not be told, though a server may say it back: the longest first.
type secrets []string

// secretsOf returns what a fetch of u with a header is not to tell.
func secretsOf(u *url.URL, header http.Header) secrets {
	all := secretsIn(u)
	for name, values := range header {
		for _, value := range values {
			all = append(all, value)
			parts := strings.FieldsFunc(value, func(c rune) bool { return strings.ContainsRune(" \t,;=\"", c) })
			if strings.HasSuffix(http.CanonicalHeaderKey(name), "Authorization") && len(parts) > 1 {
				parts = parts[1:] // Behind the scheme.
			}
			for _, part := range parts {
				if len(part) >= minSecretPart {
					all = append(all, part)
				}
			}
			r := http.Request{Header: http.Header{"Authorization": {value}}}
			if user, password, ok := r.BasicAuth(); ok {
				all = append(all, user, password)
			}
		}
	}
	return newSecrets(all)
}

// withRedirect adds what a redirect to u told: its path may be one that only who was sent there is to know.
func (s secrets) withRedirect(u *url.URL) secrets {
	all := append(secretsIn(u), s...)
	if len(u.Path) > 1 {
		all = append(all, u.Path, u.EscapedPath())
	}
	return newSecrets(all)
}

// secretsIn returns userinfo and query of an address, and their parts.
func secretsIn(u *url.URL) []string {
	all := []string{u.RawQuery}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, raw, _ := strings.Cut(pair, "=")
		all = append(all, raw)
	}
	for _, values := range u.Query() {
		all = append(all, values...)
	}
	if u.User != nil {
		user := u.User.Username()
		password, _ := u.User.Password()
		rawUser, rawPassword, _ := strings.Cut(u.User.String(), ":")
		all = append(all, user, password, rawUser, rawPassword, url.QueryEscape(user), url.QueryEscape(password),
			base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	return all
}

// newSecrets puts secrets in order, with the other forms that they take in a text.
func newSecrets(all []string) secrets {
	for _, secret := range all {
		all = append(all, printable(secret))
		if quoted, err := json.Marshal(secret); err == nil {
			all = append(all, string(quoted[1:len(quoted)-1]))
		}
	}
	all = slices.DeleteFunc(all, func(secret string) bool { return strings.TrimSpace(secret) == "" })
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(all)
}

// hide returns at most limit bytes of what somebody else says: in one printable line, with … for each secret and for
// what is behind the limit. more tells that the text goes on, with what may be the rest of a secret.
func (s secrets) hide(text string, more bool, limit int) string {
	pairs := make([]string, 0, 2*len(s))
	for _, secret := range s {
		pairs = append(pairs, secret, "…")
	}
	// A secret that is no text may be found inside a character, and leave half of it.
	text = printable(strings.NewReplacer(pairs...).Replace(printable(text)))
	begun := len(text) // Where a secret begins that the end cuts off.
	for _, secret := range s {
		for n := min(len(secret)-1, len(text)); more && n > 0; n-- {
			if strings.HasSuffix(text, secret[:n]) {
				begun = min(begun, len(text)-n)
				break
			}
		}
	}
	text = upTo(begun, text)
	if len(text) > limit {
		text = upTo(limit, text) + "…"
	}
	return text
}

// upTo returns at most n bytes of a text, whole characters.
func upTo(n int, text string) string {
	for n < len(text) && n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// printable is a text in one line, without what cannot be seen.
func printable(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(c rune) bool {
		return unicode.IsSpace(c) || !unicode.IsPrint(c) || c == utf8.RuneError
	}), " ")
}
