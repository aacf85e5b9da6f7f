package tests

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// misbehaving is a handler for what no module of Caddy does on request:
//
//	misbehave panic|abort|nothing|early_error|late_error|read_from|await_client|traced
type misbehaving struct {
	How string `json:"how,omitempty"`
}

func init() {
	caddy.RegisterModule(misbehaving{})
	httpcaddyfile.RegisterHandlerDirective("misbehave", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		var m misbehaving
		if !h.Args(&m.How) {
			return nil, h.ArgErr()
		}
		return m, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("misbehave", httpcaddyfile.Before, "respond")
}

func (misbehaving) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.misbehave", New: func() caddy.Module { return new(misbehaving) }}
}

// awaited is closed when `misbehave await_client` has got its request.
var awaited chan<- struct{}

// spans records what `misbehave traced` traces.
var spans = tracetest.NewSpanRecorder()

var tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("tests")

func (m misbehaving) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch m.How {
	case "panic":
		panic("misbehaving on purpose")
	case "abort":
		_, _ = io.WriteString(w, "half of")
		panic(http.ErrAbortHandler)
	case "early_error":
		return caddyhttp.Error(http.StatusBadGateway, io.ErrUnexpectedEOF)
	case "late_error":
		_, _ = io.WriteString(w, "half of")
		return caddyhttp.Error(http.StatusBadGateway, io.ErrUnexpectedEOF)
	case "read_from":
		_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("read from"))
		return err
	case "await_client":
		close(awaited)
		<-r.Context().Done()
		return nil
	case "traced":
		ctx, span := tracer.Start(r.Context(), "request")
		defer span.End()
		return next.ServeHTTP(w, r.WithContext(ctx))
	}
	return nil // having written nothing
}
