package sources

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func init() {
	// In a process of its own: net/http reads the environment once.
	asChild("proxied", func(url string) {
		doc, err := (&HTTP{URL: url}).Load(context.Background())
		fmt.Println(string(doc.Body), err)
	})
}

func TestHTTPProxyOfTheEnvironment(t *testing.T) {
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") == "" {
			t.Error("asked without the password")
		}
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.WriteString(w, r.URL.String())
	})
	withPassword := strings.Replace(proxy.URL, "//", "//jan:hunter2@", 1)
	for _, c := range []struct{ name, proxy, url, want string }{
		{"http", withPassword, "http://flags.example/f.json", "http://flags.example/f.json <nil>"},
		{"https", withPassword, "https://flags.example/f.json", ` http "https://flags.example/f.json": the proxy answered 403 Forbidden`},
		{"down", "http://jan:hunter2@127.0.0.1:1", "http://flags.example/f.json", ` http "http://flags.example/f.json": connecting to the proxy: connecting: connection refused`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := child("proxied", c.url)
			cmd.Env = append(cmd.Env, "HTTP_PROXY="+c.proxy, "HTTPS_PROXY="+c.proxy, "http_proxy=", "https_proxy=", "NO_PROXY=", "no_proxy=")
			out, err := cmd.Output()
			if err != nil || string(out) != c.want+"\n" {
				t.Errorf("got  %s, %v\nwant %s", out, err, c.want)
			}
		})
	}
}
