package sources

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// theSecrets are in the address and header of every source here.
var theSecrets = []string{
	"janitor", "hunter2/x", "hunter2%2Fx", "tok en3", "tok+en3", base64.StdEncoding.EncodeToString([]byte("janitor:hunter2/x")),
	"bearer-4", "cookie-5", "header 6", "pass-7", "dave",
}

// theirSecrets are what redirects tell.
var theirSecrets = []string{"signature8", "/private-path9", "annika", "theirs"}

func secretSource(address string) *HTTP {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("dave:pass-7"))
	return &HTTP{
		URL: strings.Replace(address, "//", "//janitor:hunter2%2Fx@", 1) + "/f.json?key=tok+en3&other",
		Header: http.Header{
			"Authorization": {"Bearer bearer-4"}, "Cookie": {"a=1; session=cookie-5"}, "X-Key": {"header  6"}, "X-Other": {basic},
		},
	}
}

// wantNoSecret looks at an error and all that it wraps.
func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		text := fmt.Sprintf("%v %+v %#v", e, e, e)
		for _, secret := range slices.Concat(theSecrets, theirSecrets) {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", text, secret)
			}
		}
	}
	if err := errors.Unwrap(err); err != nil {
		t.Errorf("wraps %T", err)
	}
}

// TestHTTPErrorsHoldNoSecret has servers and transports that say back all that they know.
func TestHTTPErrorsHoldNoSecret(t *testing.T) {
	all := strings.Join(theSecrets, " ")
	inJSON := func(text string) string { return strings.ReplaceAll(fmt.Sprintf("%q", text), "/", `\/`) }
	for name, text := range map[string]string{
		"plain":    "HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" + all,
		"raw":      "HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nheader  6 header\x006 header\r\n6",
		"json":     "HTTP/1.1 500 No\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + strings.ReplaceAll(inJSON(all), `\/`, "/"),
		"reason":   "HTTP/1.1 500 " + all + "\r\nContent-Length: 0\r\n\r\n",
		"status":   "HTTP/1.1 " + all + "\r\n\r\n",
		"no HTTP":  all + "\r\n\r\n",
		"header":   "HTTP/1.1 200 OK\r\n" + all + "\r\n\r\n",
		"length":   "HTTP/1.1 200 OK\r\nContent-Length: " + all + "\r\n\r\n",
		"transfer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + all + "\r\n\r\n",
		"type":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html; a=" + all + "\r\n\r\n{}",
		"encoding": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: " + all + "\r\n\r\n{}",
		"location": "HTTP/1.1 302 Found\r\nLocation: http://%zz/" + url.QueryEscape(all) + "\r\n\r\n",
		"scheme":   "HTTP/1.1 302 Found\r\nLocation: bearer-4://" + url.QueryEscape(all) + "\r\n\r\n",
		"refused":  "HTTP/1.1 302 Found\r\nLocation: http://annika:theirs@127.0.0.1:1/private-path9?sig=signature8\r\n\r\n",
		"loop":     "HTTP/1.1 302 Found\r\nLocation: ?sig=signature8\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secretSource(serveBytes(t, sayBytes(text))).Load(t.Context())
			wantNoSecret(t, err)
		})
	}
	t.Run("of a redirect", func(t *testing.T) {
		other := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, r.URL, " for annika:theirs, or ", all)
		})
		first := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, strings.Replace(other.URL, "//", "//annika:theirs@", 1)+"/private-path9?sig=signature8", http.StatusFound)
		})
		_, err := secretSource(first.URL).Load(t.Context())
		wantNoSecret(t, err)
		if want := fmt.Sprintf("redirected to %q: answered 403 Forbidden, saying", other.URL); !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	})
	t.Run("of a transport", func(t *testing.T) {
		h := secretSource("http://flags.example")
		h.transport = transport(func(r *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Get", URL: h.URL, Err: fmt.Errorf("asking with %v", r.Header)}
		})
		_, err := h.Load(t.Context())
		wantNoSecret(t, err)
	})
	t.Run("of a body", func(t *testing.T) {
		h := secretSource("http://flags.example")
		h.transport = transport(func(r *http.Request) (*http.Response, error) {
			broken := io.MultiReader(strings.NewReader("{"), failing{fmt.Errorf("reading of %s: %v", h.URL, r.Header)})
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(broken), ContentLength: 10}, nil
		})
		_, err := h.Load(t.Context())
		wantNoSecret(t, err)
	})
	t.Run("of no address", func(t *testing.T) {
		h := secretSource("http://flags.example:hunter2")
		_, err := h.Load(t.Context())
		wantNoSecret(t, err)
		wantNoSecret(t, h.Check())
	})
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t(r)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	return 0, f.err
}

func TestHide(t *testing.T) {
	s := newSecrets([]string{"abab", "xyz", ""})
	for _, c := range []struct {
		in   string
		more bool
		want string
	}{
		{"nothing", false, "nothing"},
		{"an abab, xyz", false, "an …, …"},
		{"an abababab", true, "an ……"},
		{"an aba", false, "an aba"},
		{"an aba", true, "an "},
		{"an xy", true, "an "},
		{"an xyz", true, "an …"},
		{"0123456789012345678", false, "0123456789012345678"},
		{"012345678901234567890", false, "01234567890123456789…"},
		{"0123456789012345678äb", false, "0123456789012345678…"},
	} {
		if got := s.hide(c.in, c.more, 20); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

// FuzzHide cuts what a server says at any place: nothing of a secret is told but by chance.
func FuzzHide(f *testing.F) {
	f.Add("you said hunter2hunter2 to me", "hunter2", uint(12), uint(200))
	f.Add("aaaaaaaab", "aab", uint(9), uint(3))
	f.Add("C/O&&\x92\x06\x04\x9c\xf7_1>\x0f\x9d٘", "\xd9", uint(72), uint(168))
	f.Add("aaaa訨\xa8\xa8\xa8", "\xa8ab", uint(9), uint(25))
	f.Fuzz(func(t *testing.T, text, secret string, cut, limit uint) {
		limit %= 300
		s := newSecrets([]string{secret})
		got := s.hide(text[:min(cut, uint(len(text)))], cut < uint(len(text)), int(limit))
		if len(got) > int(limit)+len("…") || !utf8.ValidString(got) || got != printable(got) && got != printable(got)+" " {
			t.Errorf("%q of %q", got, text)
		}
		if secret = printable(secret); secret != "" && !strings.Contains("…", secret) && strings.Contains(got, secret) {
			t.Errorf("%q holds %q", got, secret)
		}
	})
}
