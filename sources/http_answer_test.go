package sources

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestHTTPRefusedStatus(t *testing.T) {
	long := strings.Repeat("ä", 150)
	for _, c := range []struct {
		name, kind, body string
		status           int
		want             string
	}{
		{"plain", "text/plain; charset=utf-8", "down\x00 for\r\n\tmaintenance\u202e\xff ", 503, `answered 503 Service Unavailable, saying "down for maintenance"`},
		{"json", "application/json", `{"error": "no"}`, 404, `answered 404 Not Found, saying "{\"error\": \"no\"}"`},
		{"problem", "Application/Problem+JSON", `{}`, 500, `answered 500 Internal Server Error, saying "{}"`},
		{"long", "text/plain", long, 500, `answered 500 Internal Server Error, saying "` + long[:200] + `…"`},
		{"page", "text/html", "<h1>no</h1>", 403, "answered 403 Forbidden"},
		{"binary", "application/octet-stream", "no", 403, "answered 403 Forbidden"},
		{"nothing", "text/plain", "", 429, "answered 429 Too Many Requests"},
		{"unknown", "", "", 599, "answered 599"},
		{"no content", "", "", 204, "answered 204 No Content"},
		{"part", "application/json", `{}`, 206, `answered 206 Partial Content, saying "{}"`},
		{"another's", "application/json", `{}`, 203, `answered 203 Non-Authoritative Information, saying "{}"`},
		{"nowhere", "", "", 302, "answered 302 Found"},
		{"choices", "", "", 300, "answered 300 Multiple Choices"},
		{"not asked", "", "", 304, "answered 304 Not Modified, though nothing was said of an earlier version, want 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			wantFault(t, &HTTP{URL: s.URL}, c.want)
		})
	}
}

// TestHTTPBodies has what comes with 200.
func TestHTTPBodies(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<17)
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc
		want   string
	}{
		{"as large as may be", say(large), ""},
		{"as large as may be, packed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed([]byte(large)))
		}, ""},
		{"too large", say(large + "x"), "is larger than 2097152 bytes"},
		{"too large, as said", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2097153")
			io.WriteString(w, large+"x")
		}, "is larger than 2097152 bytes"},
		{"too large when unpacked", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed(make([]byte, 1<<25)))
		}, "is larger than 2097152 bytes"},
		{"not what it is said to be", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "abc, abc, abc, abc")
		}, "reading the body: gzip: invalid header"},
		{"half packed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed([]byte(large))[:1000])
		}, "the body is cut off"},
		{"another encoding", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, "abc")
		}, `answered in the encoding "br", want gzip or none`},
		{"empty", say(""), "answered with an empty body, want JSON or YAML"},
		{"blank", say(" \r\n\t"), "answered with an empty body, want JSON or YAML"},
		{"page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "Text/HTML ;charset")
			io.WriteString(w, "{}")
		}, "answered with a page (text/html), want JSON or YAML"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &HTTP{URL: serve(t, c.handle).URL, MaxSize: int64(len(large))}
			if c.want == "" {
				wantBody(t, h, large)
			} else {
				wantFault(t, h, c.want)
			}
		})
	}
	t.Run("larger than the default", func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed(make([]byte, DefaultMaxSize+1)))
		})
		wantFault(t, &HTTP{URL: s.URL}, "is larger than 16777216 bytes")
	})
}

// TestHTTPBrokenAnswers has what goes over the wire of servers that are ill.
func TestHTTPBrokenAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, c := range []struct {
		name   string
		answer func(net.Conn)
		want   string
	}{
		{"nothing", sayBytes(""), "closed the connection before the end of an answer"},
		{"half a header", sayBytes("HTTP/1.1 200 OK\r\nContent-"), `malformed MIME header: missing colon: "Content-"`},
		{"no HTTP", sayBytes("SSH-2.0-OpenSSH_9.2\r\n"), `malformed HTTP response "SSH-2.0-OpenSSH_9.2"`},
		{"huge header", sayBytes(ok + "X-A: " + strings.Repeat("a", maxHeader) + "\r\n\r\n{}"), "server response headers exceeded 65536 bytes; aborted"},
		{"many headers", sayBytes(ok + strings.Repeat("X-A: b\r\n", maxHeader/8) + "\r\n{}"), "server response headers exceeded 65536 bytes; aborted"},
		{"more than it says", sayBytes(ok + "Content-Length: 2\r\n\r\n{}{}"), ""},
		{"less than it says", sayBytes(ok + "Content-Length: 20\r\n\r\n{}"), "the body is cut off"},
		{"two lengths", sayBytes(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), `http: message cannot contain multiple Content-Length headers; got ["2" "3"]`},
		{"negative length", sayBytes(ok + "Content-Length: -2\r\n\r\n{}"), `bad Content-Length "-2"`},
		{"chunks cut off", sayBytes(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), "the body is cut off"},
		{"chunk cut off", sayBytes(ok + "Transfer-Encoding: chunked\r\n\r\n20\r\n{}"), "the body is cut off"},
		{"no chunks", sayBytes(ok + "Transfer-Encoding: chunked\r\n\r\n{}\r\n"), "reading the body: invalid byte in chunk length"},
		{"chunks", sayBytes(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), ""},
		{"no length", sayBytes(ok + "\r\n{}"), ""},
		{"no length, HTTP/1.0", sayBytes("HTTP/1.0 200 OK\r\n\r\n{}"), ""},
		{"no length, YAML", sayBytes(ok + "\r\na:\n  active: true\n"), "answered without saying where the body ends, want a Content-Length or chunks"},
		{"no length, YAML, HTTP/1.0", sayBytes("HTTP/1.0 200 OK\r\n\r\na:\n  active: true\n"), "answered without saying where the body ends, want a Content-Length or chunks"},
		{"no length, packed", sayBytes(ok + "Content-Encoding: gzip\r\n\r\n" + string(packed([]byte("{}")))), ""},
		{"no length, half packed", sayBytes(ok + "Content-Encoding: gzip\r\n\r\n" + string(packed([]byte("{}"))[:22])), "the body is cut off"},
		{"reset amid the body", func(conn net.Conn) {
			io.WriteString(conn, ok+"Content-Length: 2000000\r\n\r\n"+strings.Repeat("{}", 1000))
			conn.(*net.TCPConn).SetLinger(0)
		}, "reading the body: reading: connection reset by peer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &HTTP{URL: serveBytes(t, c.answer)}
			if c.want == "" {
				wantBody(t, h, "{}")
				return
			}
			wantFault(t, h, c.want)
		})
	}
}

func TestHTTPUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()
	wantFault(t, &HTTP{URL: "http://" + l.Addr().String()}, "connecting: connection refused")
	wantFault(t, &HTTP{URL: "https://" + serve(t, say("{}")).Listener.Addr().String()}, "answered without TLS")
	s := httptest.NewUnstartedServer(say("{}"))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	wantFault(t, &HTTP{URL: s.URL}, "tls: failed to verify certificate: x509: certificate signed by unknown authority")
}

// TestHTTP2 has the same over TLS, by a client that knows the server.
func TestHTTP2(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked by %s", r.Proto)
		}
		switch r.URL.Path {
		case "/cut":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "{}")
		case "/reset":
			io.WriteString(w, "{}")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			io.WriteString(w, "{}")
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	h := func(path string) *HTTP {
		h := &HTTP{URL: s.URL + path}
		h.roundTripper().(*http.Transport).TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		h.roundTripper().(*http.Transport).TLSClientConfig.NextProtos = nil
		return h
	}
	wantBody(t, h("/"), "{}")
	wantFault(t, h("/cut"), "the body is cut off")
	_, err := h("/reset").Load(t.Context())
	if err == nil || !strings.Contains(err.Error(), ": reading the body: stream error: stream ID 1; INTERNAL_ERROR") {
		t.Errorf("got %v", err)
	}
}

// TestHTTPKinds has errors whose texts differ at each attempt, and that are to be told once.
func TestHTTPKinds(t *testing.T) {
	for name, pair := range map[string][2]error{
		"port":   {&net.DNSError{Err: "read udp 127.0.0.1:43412->127.0.0.53:53: no route"}, &net.DNSError{Err: "read udp 127.0.0.1:1->127.0.0.53:53: no route"}},
		"stream": {errors.New("stream error: stream ID 1; CANCEL"), errors.New("stream error: stream ID 37; CANCEL")},
		"address": {
			&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, Err: os.NewSyscallError("connect", os.ErrPermission)},
			&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2)}, Err: os.NewSyscallError("connect", os.ErrPermission)},
		},
		"time": {
			x509.CertificateInvalidError{Cert: new(x509.Certificate), Reason: x509.Expired, Detail: "current time 2026-01-01T00:00:00Z"},
			x509.CertificateInvalidError{Cert: new(x509.Certificate), Reason: x509.Expired, Detail: "current time 2026-01-01T00:00:30Z"},
		},
	} {
		if a, b := foreign(pair[0], nil), foreign(pair[1], nil); a.kind != b.kind {
			t.Errorf("%s: %q and %q are two", name, a.text, b.text)
		}
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "flags.example", IsNotFound: true}}, "connecting: looking the host up: no such host"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", Name: "flags.example", IsTimeout: true}}, "connecting: looking the host up: timed out"},
		{&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", os.ErrPermission)}}, "connecting to the proxy: connecting: permission denied"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, "remote error: tls: handshake failure"},
		{fmt.Errorf("net/http: Transport failed to read from server: %w", io.EOF), "closed the connection before the end of an answer"},
	} {
		if got := foreign(c.err, nil).text; got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
}
