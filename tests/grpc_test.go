package tests

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// answersGRPC is an upstream that speaks HTTP/2 without TLS, as gRPC does.
func answersGRPC(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Read whole: Caddy 2.11.9 has a data race where an answer overtakes the
		// request's body (bodyNopCloserIfNotRead).
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// announced answers with a gRPC status in an announced trailer.
func announced(code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write([]byte{0, 0, 0, 0, 0})
		w.Header().Set("Grpc-Status", code)
	}
}

// gRPC says how it went in trailers, or in the headers of an answer that is
// nothing else, under status 200.
func TestOutcomeOfGRPC(t *testing.T) {
	late := func(code string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			_, _ = w.Write([]byte{0, 0, 0, 0, 0})
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
		}
	}
	only := func(code string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", code)
			w.WriteHeader(http.StatusOK)
		}
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   class
	}{
		{"0 in announced trailers", announced("0"), good},
		{"0 in late trailers", late("0"), good},
		{"0 without a body", only("0"), good},
		{"1, cancelled", announced("1"), class{"client_gone", "none", true}},
		{"2, unknown", announced("2"), class{"error", "2xx", true}},
		{"3, invalid argument", announced("3"), good},
		{"4, deadline exceeded", late("4"), class{"error", "2xx", true}},
		{"5, not found", late("5"), good},
		{"5 without a body", only("5"), good},
		{"12, unimplemented", only("12"), class{"error", "2xx", true}},
		{"13, internal", announced("13"), class{"error", "2xx", true}},
		{"13 in late trailers", late("13"), class{"error", "2xx", true}},
		{"13 without a body", only("13"), class{"error", "2xx", true}},
		{"14, unavailable", late("14"), class{"error", "2xx", true}},
		{"15, data loss", only("15"), class{"error", "2xx", true}},
		{"16, unauthenticated", only("16"), good},
		{"13 of what is no gRPC", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Grpc-Status", "13")
		}, good},
		{"500", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(500)
		}, failed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := answersGRPC(t, test.answer)
			c := serve(t, strings.Replace(proxied, "USE", "reverse_proxy h2c://UP", 1), onlyAlice, map[string]string{"UP": host(s)})
			req, _ := http.NewRequest("POST", c.url(0)+"/pkg.Service/Method", strings.NewReader("\x00\x00\x00\x00\x00"))
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Te", "trailers")
			req.Header.Set("X-User-ID", "alice")
			resp, err := h2c(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Fatalf("answered by %s, want HTTP/2", resp.Proto)
			}
			c.expect(test.want)
		})
	}
}

// Trailers and the messages before them reach the client as they are.
func TestGRPCPassesThrough(t *testing.T) {
	s := answersGRPC(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = w.Write([]byte("message of " + r.Header.Get("X-Feature-New-Ui")))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})
	c := serve(t, strings.Replace(proxied, "USE", "reverse_proxy h2c://UP", 1), onlyAlice, map[string]string{"UP": host(s)})
	req, _ := http.NewRequest("POST", c.url(0), nil)
	req.Header.Set("X-User-ID", "alice")
	resp, err := h2c(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body strings.Builder
	if _, err := io.Copy(&body, resp.Body); err != nil {
		t.Fatal(err)
	}
	if body.String() != "message of on" || resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("%q, trailers %v", body.String(), resp.Trailer)
	}
}
