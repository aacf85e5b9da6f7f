package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// head is the head of a Caddyfile whose logs go to files: DIR/caddy.log, and
// DIR/access.log of sites that say `log site`. SERVERS is a word for options of
// the server.
const head = `{
	admin ADMIN
	auto_https off
	persist_config off
	grace_period 2s
	log {
		output file DIR/caddy.log
		format json
	}
	log site {
		output file DIR/access.log
		format json
		include http.log.access.site
	}
	servers {
		protocols h1 h2c
		SERVERS
	}
	feature_flags {
		source file FEATURES {
			poll 100ms
		}
		state local STATE
	}
}
`

// site opens the usual site; its end is the test's to write.
const site = `
http://:0 {
	bind 127.0.0.1
	log site
`

// serve starts a Caddy with the usual head.
func serve(t *testing.T, sites, features string, words map[string]string) *instance {
	t.Helper()
	all := map[string]string{"SERVERS": ""}
	for k, v := range words {
		all[k] = v
	}
	return start(t, head+sites, features, all)
}

// onlyAlice is a flag that is on for alice and splits everybody else 0 to 100.
const onlyAlice = `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0}}`

// request is what an upstream of kind [echo] was sent.
type request struct {
	Name   string      `json:"name"`
	Proto  string      `json:"proto"`
	URI    string      `json:"uri"`
	Header http.Header `json:"header"`
}

// echo is an upstream that answers with the request as it came.
func echo(t *testing.T, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(request{Name: name, Proto: r.Proto, URI: r.RequestURI, Header: r.Header})
	}))
	t.Cleanup(s.Close)
	return s
}

// echoed reads an answer of echo.
func (r reply) echoed(t *testing.T) (out request) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("status %d, %v: %q", r.status, err, r.body)
	}
	return out
}

// figures are the counts of one cohort.
type figures struct {
	Requests, Errors int
	ClientGone       int `json:"client_gone"`
}

// guard reads what the API tells about a flag's monitors.
type guard struct {
	Status string
	State  struct {
		Tripped bool
		Trips   []struct {
			Test     string
			Evidence struct {
				Test, Summary string
				Limit, Found  float64
				Canary        struct{ Requests, Errors, Slow int }
				Last          []struct {
					ID, Why string
					Status  int
				} `json:"last_failing"`
			}
		}
	}
	Guard struct {
		Canary, Control struct{ Requests, Errors, Slow int }
		Figures         struct{ Canary, Control figures }
	}
}

func (c *instance) guard(flag string) (g guard) {
	c.t.Helper()
	text, err := json.Marshal(c.api("GET", "flags/"+flag, "", http.StatusOK))
	if err == nil {
		err = json.Unmarshal(text, &g)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// settled waits until n requests of the flag's canary are done.
func (c *instance) settled(flag string, n int) guard {
	c.t.Helper()
	var g guard
	eventually(c.t, 5*time.Second, fmt.Sprintf("%d outcomes of the canary", n), func() bool {
		g = c.guard(flag)
		return g.Guard.Figures.Canary.Requests >= n
	})
	return c.guard(flag) // an outcome that came while the first was written is whole by now
}

// metric returns the value of a series as the metrics endpoint writes it, "" when
// there is none.
func (c *instance) metric(series string) string {
	c.t.Helper()
	r := c.call(http.MethodGet, "/metrics", "")
	for line := range strings.Lines(r.body) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return ""
}

// told is what the access log says about one flag.
type told struct {
	Variant, Reason, Detail, Outcome, Fallback, Link string
	MirrorID                                         string `json:"mirror_id"`

	TTFB      *float64 `json:"ttfb"`
	RequestID string   `json:"request_id"`
}

// entry is a line of the access log.
type entry struct {
	Status int
	Flags  map[string]told `json:"feature_flags"`
}

// entries waits for n lines of the access log.
func (c *instance) entries(n int) (out []entry) {
	c.t.Helper()
	eventually(c.t, 5*time.Second, fmt.Sprintf("%d lines in the access log", n), func() bool {
		out = out[:0]
		for line := range strings.Lines(c.file("access.log")) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return false // half a line
			}
			out = append(out, e)
		}
		return len(out) >= n
	})
	return out
}

// file reads a file of the test's folder; one that is missing is empty.
func (c *instance) file(name string) string {
	text, _ := os.ReadFile(filepath.Join(c.dir, name))
	return string(text)
}

// do sends any request and reads the answer whole.
func do(t *testing.T, via *http.Client, req *http.Request) reply {
	t.Helper()
	resp, err := via.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// h2c speaks HTTP/2 without TLS.
func h2c(t *testing.T) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: p}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}
