package webhook

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

const redacted = "[redacted]"

// redaction takes the secrets of a target out of texts that came from elsewhere: an answer may repeat the request, an
// error of the network library the address.
type redaction struct {
	pieces  []string // The longest first.
	longest int
}

// shortest is the length below which a part of an address or a header is too common to be taken for a secret. A password
// is one at any length.
const shortest = 4

// userInfo is what stands before the host of any address, such as that of a proxy.
var userInfo = regexp.MustCompile(`//[^\s/"]*@`)

func newRedaction(t Target, u *url.URL) redaction {
	var r redaction
	add := func(least int, pieces ...string) {
		for _, p := range pieces {
			if len(p) < least || p == "" {
				continue
			}
			r.pieces = append(r.pieces, p, url.QueryEscape(p), url.PathEscape(p), strings.ReplaceAll(p, "/", `\/`))
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		pair := u.User.Username() + ":" + password
		add(1, password, u.User.String(), base64.StdEncoding.EncodeToString([]byte(pair)))
		add(shortest, u.User.Username())
	}
	add(shortest, t.URL, u.String(), u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery)
	for _, path := range []string{u.Path, u.EscapedPath()} {
		for segment := range strings.SplitSeq(path, "/") {
			add(2*shortest, segment)
		}
	}
	for _, values := range u.Query() {
		add(shortest, values...)
	}
	add(1, t.Secret, t.RoutingKey)
	for secret := range strings.FieldsSeq(t.Secret) {
		add(1, secret, strings.TrimPrefix(secret, secretPrefix))
	}
	for _, values := range t.Header {
		for _, v := range values {
			add(shortest, v)
			add(2*shortest, strings.Fields(v)...)
		}
	}
	slices.SortFunc(r.pieces, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	r.pieces = slices.Compact(r.pieces)
	if len(r.pieces) > 0 {
		r.longest = len(r.pieces[0])
	}
	return r
}

// text is s in one line of printable characters without secrets, of at most limit bytes. whole is false when s was cut:
// the beginning of a secret may stand at its end.
func (r redaction) text(s string, whole bool, limit int) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case !unicode.IsPrint(c):
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	if !whole {
		s = s[:max(0, len(s)-r.longest)]
	}
	s = userInfo.ReplaceAllString(s, "//"+redacted+"@")
	for _, p := range r.pieces {
		s = strings.ReplaceAll(s, p, redacted)
	}
	return cut(strings.Join(strings.Fields(s), " "), limit)
}
