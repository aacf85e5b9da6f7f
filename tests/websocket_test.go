package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// tunnels is an upstream that takes WebSocket upgrades, tells the flag it was
// told in a header, and sends every line back.
func tunnels(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			http.Error(w, "no upgrade", http.StatusUpgradeRequired)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijacking: %v", err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Told: %s\r\n\r\n", r.Header.Get("X-Feature-New-Ui"))
		_ = rw.Flush()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = rw.WriteString("echo " + line)
			_ = rw.Flush()
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// tunnel is the client's end.
type tunnel struct {
	net.Conn
	*bufio.Reader
	answer *http.Response
}

func (tu *tunnel) Read(p []byte) (int, error) { return tu.Reader.Read(p) }

// open upgrades a connection through Caddy; connection is the header's value.
func open(t *testing.T, c *instance, connection string, headers ...string) *tunnel {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url(0), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", connection)
	for i := 0; i+1 < len(headers); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", headers[i], headers[i+1])
	}
	if _, err := io.WriteString(conn, b.String()+"\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &tunnel{conn, r, answer}
}

// ask sends a line and wants it back.
func (tu *tunnel) ask(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(tu.Conn, line+"\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := tu.ReadString('\n'); err != nil || got != "echo "+line+"\n" {
		t.Fatalf("through the tunnel: %q, %v", got, err)
	}
}

const tunnelSite = site + `
	feature_flags {
		context {
			user_id header X-User-ID
		}
	}
	reverse_proxy UP
}
`

// A client that names our header in Connection gets its tunnel all the same,
// and the upstream gets the header.
func TestWebSocketWithForgedConnection(t *testing.T) {
	c := serve(t, tunnelSite, onlyAlice, map[string]string{"UP": host(tunnels(t))})
	for _, connection := range []string{"Upgrade", "upgrade, x-feature-new-ui", "X-Feature-New-Ui,Upgrade", "x-feature-new-ui, UPGRADE, X-Feature-Other"} {
		tu := open(t, c, connection, "X-User-ID", "alice", "X-Feature-New-Ui", "off")
		if tu.answer.StatusCode != http.StatusSwitchingProtocols || tu.answer.Header.Get("X-Told") != "on" {
			t.Errorf("Connection: %s: status %d, upstream was told %q, want 101 and on", connection, tu.answer.StatusCode, tu.answer.Header.Get("X-Told"))
			continue
		}
		tu.ask(t, "hello")
		tu.Close()
	}
	c.entries(4) // all tunnels have ended: Caddy's closing of open ones races with their end
}

// The outcome is known with the 101; how long the tunnel lives has no say.
func TestWebSocketCountsByFirstByte(t *testing.T) {
	c := serve(t, tunnelSite, `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, "performance_baseline": 1, "performance_threshold": 0}}`,
		map[string]string{"UP": host(tunnels(t))})
	tu := open(t, c, "Upgrade", "X-User-ID", "alice")
	tu.ask(t, "one")
	g := c.settled("new_ui", 1) // while the tunnel is open
	if g.Guard.Canary.Requests != 1 || g.Guard.Canary.Errors != 0 || g.Guard.Figures.Canary.ClientGone != 0 {
		t.Errorf("open tunnel: %+v, want one good request", g.Guard)
	}
	opened := time.Now()
	eventually(t, 5*time.Second, "longer than the baseline", func() bool {
		tu.ask(t, "still here")
		return time.Since(opened) > 1200*time.Millisecond
	})
	tu.Close()
	told := c.entries(1)[0].Flags["new_ui"]
	if told.Outcome != "ok" || told.TTFB == nil || *told.TTFB > 1 {
		t.Errorf("access log: %+v, want ok and the time to the 101", told)
	}
	if g := c.guard("new_ui"); g.Status == "tripped" || g.Guard.Canary.Requests != 1 || g.Guard.Canary.Slow != 0 {
		t.Errorf("closed tunnel: %s, %+v, want it counted once and not as slow", g.Status, g.Guard)
	}
}
