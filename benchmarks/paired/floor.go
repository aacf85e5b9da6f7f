package main

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// floor is the least that a handler can do which sets one request header, adds a
// Vary line and watches the answer: no plugin of this kind is cheaper. It
// decides, counts and times nothing.
type floor struct {
	// Length of the header's value.
	Length int `json:"length"`

	value string
}

func init() {
	caddy.RegisterModule((*floor)(nil))
	httpcaddyfile.RegisterHandlerDirective("floor", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		if h.NextArg() {
			return &floor{Length: len(h.Val())}, nil
		}
		return nil, h.ArgErr()
	})
	httpcaddyfile.RegisterDirectiveOrder("floor", httpcaddyfile.Before, "header")
}

// CaddyModule returns the module's information.
func (*floor) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.floor", New: func() caddy.Module { return new(floor) }}
}

// Provision makes the value.
func (f *floor) Provision(caddy.Context) error {
	f.value = strings.Repeat("x", f.Length)
	return nil
}

type watching struct {
	caddyhttp.ResponseWriterWrapper
	status int
}

// WriteHeader notes the status.
func (w *watching) WriteHeader(status int) {
	w.status = status
	w.ResponseWriterWrapper.WriteHeader(status)
}

// ServeHTTP is part of caddyhttp.MiddlewareHandler.
func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	r.Header["X-Feature-One"] = []string{f.value}
	if f.Length < 10 {
		w.Header()["Vary"] = []string{"X-Account, X-Beta, X-Region, X-User-Id"}
	}
	o := &watching{}
	o.ResponseWriter = w
	return next.ServeHTTP(o, r)
}
