package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// Handler decides feature flags for each request and tells the application by
// request headers. In order it
//
//  1. reads the evaluation context from headers, cookies, query, verified JWT
//     claims, the user agent and placeholders;
//  2. removes what the client sent under its own header names, also where
//     `Connection` names them;
//  3. decides the flags and sets one header each, or one list of all;
//  4. passes the request on, times the answer and classifies the outcome.
//
// Whatever goes wrong with a flag, the request goes on. Only `on_invalid
// reject` answers a request itself (401).
//
// Placeholders, for handlers behind it and for logs:
//
// Placeholder | Description
// ------------|------------
// `{http.feature_flags.NAME}` | the variant: `on`, `off` or its name
// `{http.feature_flags.NAME.reason}` | why: `SPLIT`, `TARGETING_MATCH`, `DISABLED`, …
// `{http.feature_flags.NAME.value}` | the variant's value, a string without quotes, else as JSON
type Handler struct {
	// Context says where the attributes come from.
	Context []AttributeSource `json:"context,omitempty"`

	// JWT verifies tokens for the attributes that come from claims.
	JWT *JWT `json:"jwt,omitempty"`

	// Flags that are told to the application, in this order. Default: all.
	Flags []string `json:"flags,omitempty"`

	// Headers says how. Default: one header a flag, under X-Feature-.
	Headers *Headers `json:"headers,omitempty"`

	// Vary adds the headers that the decisions were read from to the
	// response's Vary, for applications whose answers depend on injected
	// headers. Default: only where a flag decided the route.
	Vary bool `json:"vary,omitempty"`

	// Propagate passes the decisions on, signed, to a next hop. Default: not.
	Propagate *Propagate `json:"propagate,omitempty"`

	// Override lets testers choose a variant by a signed link. Default: nobody.
	Override *Override `json:"override,omitempty"`

	// Trust believes what an earlier hop has signed. Default: nobody.
	Trust *Trust `json:"trust,omitempty"`

	app       *App
	log       *zap.Logger
	sources   []source
	readsUser bool // there is a source of user_id
	site      atomic.Pointer[siteRules]
}

// Headers says how decisions are told to the application.
type Headers struct {
	// Mode is each (one header a flag, the default), on_only (only for flags
	// that are on), list (one RFC 9651 dictionary of all) or off.
	Mode string `json:"mode,omitempty"`

	// Name is the prefix of the headers, or the name of the one header of
	// list. Default: X-Feature-, or X-Features.
	Name string `json:"name,omitempty"`
}

// CaddyModule returns the module's information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.feature_flags", New: func() caddy.Module { return new(Handler) }}
}

// Provision looks everything up that requests would have to.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	h.app = app
	if h.Headers == nil {
		h.Headers = &Headers{}
	}
	switch h.Headers.Mode {
	case "":
		h.Headers.Mode = "each"
	case "each", "on_only", "list", "off":
	default:
		return fmt.Errorf("headers: mode: want each, on_only, list or off, got %q", h.Headers.Mode)
	}
	if h.Headers.Name == "" && h.Headers.Mode == "list" {
		h.Headers.Name = "X-Features"
	} else if h.Headers.Name == "" {
		h.Headers.Name = "X-Feature-"
	}
	h.Headers.Name = textproto.CanonicalMIMEHeaderKey(h.Headers.Name)
	if err := h.provisionContext(); err != nil {
		return err
	}
	if h.JWT != nil {
		if err := h.JWT.provision(caddy.NewReplacer(), h.log, h.Context); err != nil {
			return err
		}
		app.onStart(h.JWT.start)
	}
	if h.Propagate != nil {
		if err := h.Propagate.provision(); err != nil {
			return fmt.Errorf("propagate: %w", err)
		}
		if h.Headers.Mode == "off" {
			return errors.New("propagate: `headers off` tells nobody anything, so there is nothing to pass on")
		}
	}
	if h.Override != nil {
		if err := h.Override.provision(); err != nil {
			return fmt.Errorf("override: %w", err)
		}
		app.overrides = append(app.overrides, h.Override.signer)
	}
	if h.Trust != nil {
		if err := h.Trust.provision(); err != nil {
			return fmt.Errorf("trust: %w", err)
		}
	}
	app.mention("flags", h.Flags)
	app.hasHandler = true
	if text, err := json.Marshal(h); err == nil {
		app.texts = append(app.texts, string(text))
	}
	return nil
}

func (h *Handler) provisionContext() error {
	var errs []error
	claims := 0
	for i := range h.Context {
		s := &h.Context[i]
		if s.Attribute == evaluator.TargetingKey {
			s.Attribute = evaluator.UserID
		}
		kind, known := sourceKinds[s.From]
		if !known {
			errs = append(errs, fmt.Errorf("context: %s: want one of %s, got %q", s.Attribute, strings.Join(sourceWords, ", "), s.From))
			continue
		}
		src := source{attribute: evaluator.AttributeOf(s.Attribute), name: s.Attribute, kind: kind, key: s.Key}
		switch {
		case s.Attribute == "":
			errs = append(errs, errors.New("context: an attribute has no name"))
		case s.Key == "" && kind != fromUserAgent && kind != fromSticky:
			errs = append(errs, fmt.Errorf("context: %s: %s needs a name", s.Attribute, s.From))
		case kind == fromJWT && h.JWT == nil:
			errs = append(errs, fmt.Errorf("context: %s: jwt %s needs a `jwt` block that says how tokens are verified", s.Attribute, s.Key))
		case kind == fromSticky && s.Attribute != evaluator.UserID:
			errs = append(errs, fmt.Errorf("context: %s: sticky is for user_id only", s.Attribute))
		}
		if kind == fromHeader {
			src.key = http.CanonicalHeaderKey(s.Key)
		}
		if kind == fromJWT {
			src.claim = claims
			claims++
		}
		h.sources = append(h.sources, src)
		h.readsUser = h.readsUser || s.Attribute == evaluator.UserID
	}
	// Sources of one attribute stand together, in the order they are given.
	first := map[string]int{}
	for i, s := range h.sources {
		if _, seen := first[s.name]; !seen {
			first[s.name] = i
		}
	}
	slices.SortStableFunc(h.sources, func(a, b source) int { return first[a.name] - first[b.name] })
	return errors.Join(errs...)
}

// Cleanup gives back what Provision took.
func (h *Handler) Cleanup() error {
	if h.JWT != nil {
		h.JWT.cleanup()
	}
	return nil
}

// ServeHTTP decides, tells, passes on and watches. A second handler on a
// request's way tells the same decisions in its own way.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rq := requestOf(r)
	switch {
	case rq == nil:
		rq = newRequest(h.app, r)
	case rq.done:
		return next.ServeHTTP(w, r) // an error route of a request that is told already
	case rq.site == nil && len(rq.exposures) > 0:
		h.app.quiet.warn(rq.arrival, "early", "a feature matcher was asked before feature_flags had read the context: its decision stands without one; put feature_flags first with `route` or `order`")
	}
	if h.Override != nil && rq.site == nil && h.follow(w, r) {
		rq.done = true
		return nil
	}
	if err := h.prepare(rq, w, r); err != nil {
		return err
	}
	return rq.watched(w, r, next)
}

// watched calls next and watches what becomes of it, unless a handler further
// out does.
func (rq *request) watched(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	o := &rq.watch
	if o.rq != nil {
		return next.ServeHTTP(w, r)
	}
	o.rq, o.only, o.ResponseWriter = rq, -1, w
	rq.beginAll()
	return o.serve(r, next)
}

// prepare does everything before the request is passed on. What panics in it
// leaves the request as it came, without our headers.
func (h *Handler) prepare(rq *request, w http.ResponseWriter, r *http.Request) error {
	defer h.app.survive("deciding flags")
	signed := h.strip(rq, r)
	rq.header = w.Header()
	claims, err := h.claimsOf(r, rq.arrival)
	if err != nil {
		rq.done = true
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		if strings.HasPrefix(r.URL.Path, ofrepPrefix) { // else a page takes it for a failure of the network, and goes on with what it has
			h.app.asking.allow(w.Header(), r, ofrepMethods)
		}
		return err
	}
	site := h.siteRules(rq.rules, rq.arrival)
	if rq.site == nil {
		rq.site = site
		h.read(rq, r, claims)
		h.app.contexts.see(rq.arrival, &rq.ctx)
		h.takeImposed(rq, r, signed)
	} else if h.Override != nil || h.Trust != nil {
		h.app.quiet.warn(rq.arrival, "second", "override and trust count in a site's first feature_flags handler only")
	}
	h.tell(rq, site, r)
	if h.Override != nil {
		rq.varyOn("Cookie")
	}
	if rq.fallback != "" {
		r.Header[fallbackHeader] = []string{rq.fallback} // it was ours
	}
	rq.mark(rq.header)
	return nil
}

// takeImposed puts in force what others have decided: an earlier hop, which may have
// signed it, a pin, a link for testers.
func (h *Handler) takeImposed(rq *request, r *http.Request, signed []string) {
	if h.Trust != nil {
		if line := h.takeTrusted(rq, signed); line != "" && h.Propagate == nil {
			r.Header[decisionsHeader] = []string{line} // for the hop after this one
		}
	}
	rq.takePins(r)
	if h.Override != nil {
		h.takeOverride(rq, r)
	}
}

// strip removes headers of ours that the client sent, and returns those with signed
// decisions.
func (h *Handler) strip(rq *request, r *http.Request) (signed []string) {
	if !rq.chained && (h.Propagate != nil || h.Trust != nil) {
		rq.chained = true
		signed = stripChain(r)
	}
	if h.Headers.Mode != "off" {
		stripOwned(r, h)
	}
	return signed
}

// owns tells whether a header is ours to set. A header that a proxy behind us
// may take for ours (with underscores) counts too.
func (h *Handler) owns(name string) bool {
	prefix := h.Headers.Name
	if len(name) < len(prefix) || !equalHeader(name[:len(prefix)], prefix) {
		return false
	}
	return h.Headers.Mode != "list" || len(name) == len(prefix)
}

// UnmarshalCaddyfile is in caddyfile_handler.go.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
