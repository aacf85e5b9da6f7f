package sources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHTTPSlow has servers that take longer than Timeout, each in another way.
func TestHTTPSlow(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
	trickle := func(begin, each string) func(net.Conn) {
		return func(conn net.Conn) {
			for _, err := io.WriteString(conn, begin); err == nil; _, err = io.WriteString(conn, each) {
				time.Sleep(time.Millisecond)
			}
		}
	}
	for _, c := range []struct {
		name   string
		answer func(net.Conn)
		want   string
	}{
		{"silence", func(conn net.Conn) { io.Copy(io.Discard, conn) }, "did not answer within 1s"},
		{"headers", trickle("HTTP/1.1 200 OK\r\nX-A: ", "a"), "did not answer within 1s"},
		{"body", trickle(head, "a"), "did not send the whole body within 1s"},
		{"chunks", trickle("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"), "did not send the whole body within 1s"},
		{"packed nothing", trickle("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", string(packed(nil))), "did not send the whole body within 1s"},
		{"half a body", func(conn net.Conn) { io.WriteString(conn, head+"{}"); io.Copy(io.Discard, conn) }, "did not send the whole body within 1s"},
		{"hint", func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nout of")
			io.Copy(io.Discard, conn)
		}, `answered 500 Internal Server Error, saying "out of"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			wantFault(t, &HTTP{URL: serveBytes(t, c.answer), Timeout: time.Second}, c.want)
			if took := time.Since(begin); took < time.Second || took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestHTTPLoadWaitsForItsContext cancels at every stage, once it has been reached.
func TestHTTPLoadWaitsForItsContext(t *testing.T) {
	hang := func(begin string) func(net.Conn, func()) {
		return func(conn net.Conn, reached func()) {
			io.WriteString(conn, begin)
			reached()
			io.Copy(io.Discard, conn)
		}
	}
	for name, answer := range map[string]func(net.Conn, func()){
		"before the headers":  hang(""),
		"amid the headers":    hang("HTTP/1.1 200 OK\r\nX-A: "),
		"before the body":     hang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
		"amid the body":       hang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
		"amid a chunk":        hang("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{}"),
		"amid what is packed": hang("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + string(packed([]byte("{}"))[:12])),
		"amid the hint":       hang("HTTP/1.1 500 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nout"),
		"amid a redirect":     hang("HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 9\r\n\r\nout"),
		"after half of it was sent": func(conn net.Conn, reached func()) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n"+strings.Repeat("a", 1000000))
			reached()
			io.Copy(io.Discard, conn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			wantCanceled(t, ctx, &HTTP{URL: serveBytes(t, func(conn net.Conn) { answer(conn, cancel) })})
		})
	}
	t.Run("before the handshake", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err == nil {
				cancel()
				io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
		wantCanceled(t, ctx, &HTTP{URL: "https://" + l.Addr().String()})
		l.Close()
		<-done
	})
	t.Run("before the connection", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := &HTTP{URL: "http://flags.example"}
		h.roundTripper().(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		wantCanceled(t, ctx, h)
	})
	t.Run("before its turn", func(t *testing.T) {
		first, end := context.WithCancel(t.Context())
		began := make(chan struct{})
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
		})
		h := &HTTP{URL: s.URL}
		done := make(chan struct{})
		go func() {
			defer close(done)
			wantCanceled(t, first, h)
		}()
		<-began
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantCanceled(t, ctx, h)
		end()
		<-done
	})
	t.Run("before all", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
		for range 20 {
			wantCanceled(t, ctx, &HTTP{URL: s.URL})
		}
	})
}

// wantCanceled wants Load to return for its context, which somebody else cancels, within a second.
func wantCanceled(t *testing.T, ctx context.Context, h *HTTP) {
	t.Helper()
	var at time.Time
	canceled := make(chan struct{})
	context.AfterFunc(ctx, func() {
		at = time.Now()
		close(canceled)
	})
	doc, err := h.Load(ctx)
	<-canceled
	if took := time.Since(at); took > time.Second {
		t.Errorf("returned after %v", took)
	}
	if want := fmt.Sprintf("http %q: context canceled", h.Name()); !errors.Is(err, context.Canceled) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if doc.Name != h.Name() || doc.Body != nil {
		t.Errorf("document %+v", doc)
	}
}
