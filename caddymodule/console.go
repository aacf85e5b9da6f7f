package caddymodule

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	pathpkg "path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/console"
)

func init() { caddy.RegisterModule((*Console)(nil)) }

// Console serves a page from which a person sees and steers everything: flags, charts
// of canary against control, trips and their evidence, rollouts, feedback, the audit
// log, a playground and a preview of changed definitions.
//
// Whoever reaches it is an operator. It has no authentication of its own: it stands
// behind the site's, which the config says by `authenticated`, or on a listener that
// only this machine reaches; else the config does not start.
type Console struct {
	// Base is the path under which it stands. Default: all of the site, or what
	// handle_path has taken off.
	Base string `json:"base,omitempty"`

	// Authenticated says that nobody but operators gets here.
	Authenticated bool `json:"authenticated,omitempty"`

	app     *App
	log     *zap.Logger
	mux     *http.ServeMux
	pages   map[string]*template.Template
	assets  map[string]asset
	foreign *http.CrossOriginProtection
	ending  context.Context

	previewing sync.Mutex
}

// asset is a static file.
type asset struct {
	text []byte
	kind string
	tag  string
}

// CaddyModule returns the module's information.
func (*Console) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.feature_flags_console", New: func() caddy.Module { return new(Console) }}
}

// Provision prepares the pages.
func (c *Console) Provision(ctx caddy.Context) (err error) {
	c.log = ctx.Logger()
	if c.app, err = appOf(ctx); err != nil {
		return err
	}
	c.Base = consoleBase(c.Base)
	if c.Base != "" && !strings.HasPrefix(c.Base, "/") {
		return fmt.Errorf("base: want a path as /flags, got %q", c.Base)
	}
	if err := c.load(); err != nil {
		return err
	}
	c.app.formKey.use(ctx, "console")
	c.foreign = http.NewCrossOriginProtection()
	c.ending = onShutdown(ctx)
	c.routes()
	c.app.contexts.use()
	c.app.hasConsole = true
	c.app.onStart(c.app.engine.rings.use)
	if !c.Authenticated {
		modules := ctx.Modules()
		c.app.onCheck(func() error { return c.checkListeners(modules) })
	}
	return nil
}

// consoleBase is a path without what a matcher has at its end.
func consoleBase(path string) string { return strings.TrimSuffix(strings.TrimSuffix(path, "*"), "/") }

// load reads templates and static files.
func (c *Console) load() error {
	c.assets, c.pages = map[string]asset{}, map[string]*template.Template{}
	kinds := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8"}
	err := fs.WalkDir(console.Files, "static", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := console.Files.ReadFile(path)
		name := d.Name()
		c.assets[name] = asset{text, kinds[name[strings.LastIndexByte(name, '.'):]], tagOf(sha256.Sum256(text))}
		return err
	})
	if err != nil {
		return err
	}
	layout, err := template.New("layout.html").Funcs(pageFuncs).ParseFS(console.Files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return err
	}
	for _, name := range []string{"flags", "flag", "audit", "lint", "playground", "preview", "problem"} {
		page, err := layout.Clone()
		if err == nil {
			page, err = page.ParseFS(console.Files, "templates/"+name+".html")
		}
		if err != nil {
			return err
		}
		c.pages[name] = page
	}
	return nil
}

// checkListeners refuses a console that others than this machine could reach.
func (c *Console) checkListeners(modules []caddy.Module) error {
	var open []string
	found := false
	for _, m := range modules {
		app, ok := m.(*caddyhttp.App)
		if !ok {
			continue
		}
		for _, s := range app.Servers {
			there := holds(s.Routes, c) || s.Errors != nil && holds(s.Errors.Routes, c)
			for _, named := range s.NamedRoutes { // of which any route may ask
				there = there || holds(caddyhttp.RouteList{*named}, c)
			}
			if !there {
				continue
			}
			found = true
			for _, address := range s.Listen {
				if !isLoopback(address) {
					open = append(open, address)
				}
			}
		}
	}
	if found && len(open) == 0 {
		return nil
	}
	if !found {
		return errors.New("feature_flags_console: stands within a handler that it cannot look into, so who reaches it cannot be told: " +
			"put it behind the site's authentication and say so by `authenticated`, or somewhere else")
	}
	return fmt.Errorf("feature_flags_console: whoever reaches the console steers all flags, and others than this machine can reach %s: "+
		"put it behind the site's authentication and say so by `authenticated`, or let the site `bind 127.0.0.1`", strings.Join(open, ", "))
}

// holds tells whether a handler is in a list of routes, or in a list within that.
func holds(routes caddyhttp.RouteList, handler caddyhttp.MiddlewareHandler) bool {
	for _, route := range routes {
		for _, h := range route.Handlers {
			switch h := h.(type) {
			case *Console:
				if caddyhttp.MiddlewareHandler(h) == handler {
					return true
				}
			case *Route:
				if slices.ContainsFunc(append(slices.Collect(maps.Values(h.Variants)), h.On, h.Off), func(way caddyhttp.RouteList) bool { return holds(way, handler) }) {
					return true
				}
			case *caddyhttp.Subroute:
				if holds(h.Routes, handler) || h.Errors != nil && holds(h.Errors.Routes, handler) {
					return true
				}
			}
		}
	}
	return false
}

// isLoopback tells whether only this machine reaches a listener.
func isLoopback(address string) bool {
	a, err := caddy.ParseNetworkAddress(address)
	if err != nil {
		return false
	}
	if a.IsUnixNetwork() || a.Network == "fd" {
		return a.IsUnixNetwork()
	}
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(a.Host, "localhost")
}

func (c *Console) takes(path string) bool {
	return c.Base == "" || path == c.Base || strings.HasPrefix(path, c.Base+"/")
}

// ServeHTTP answers what is under the base, and passes everything else on.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !c.takes(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	takeOver(w, r)
	h := w.Header()
	for name, value := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		h.Set(name, value)
	}
	if !c.Authenticated && !isLocalHost(r.Host) {
		http.Error(w, "This console is for this machine only: ask for it as localhost.", http.StatusForbidden) // else another name could lead a browser here
		return nil
	}
	if err := c.foreign.Check(r); err != nil {
		http.Error(w, "Another site has sent you here to change something. Nothing was changed.", http.StatusForbidden)
		return nil
	}
	path := strings.TrimPrefix(r.URL.Path, c.Base)
	if path == "" {
		http.Redirect(w, r, c.base(r), http.StatusFound)
		return nil
	}
	if clean := pathpkg.Clean(path); clean != path && clean+"/" != path {
		http.Error(w, "There is no such page.", http.StatusNotFound) // the mux would send elsewhere
		return nil
	}
	inner := *r
	u := *r.URL
	u.Path, u.RawPath = path, ""
	inner.URL = &u
	c.mux.ServeHTTP(w, inner.WithContext(context.WithValue(r.Context(), baseKey{}, c.base(r))))
	return nil
}

type baseKey struct{}

// base is the console's address as the browser sees it, with a slash at the end.
func (c *Console) base(r *http.Request) string { return strippedPrefix(r) + c.Base + "/" }

func baseOf(r *http.Request) string {
	base, _ := r.Context().Value(baseKey{}).(string)
	return base
}

func isLocalHost(host string) bool {
	name := hostOf(host)
	if ip := net.ParseIP(name); ip != nil {
		return ip.IsLoopback()
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// routes are the console's pages.
func (c *Console) routes() {
	c.mux = http.NewServeMux()
	page := func(pattern string, serve func(w http.ResponseWriter, r *http.Request) error) {
		c.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			defer c.app.survive("serving the console")
			if err := serve(w, r); err != nil {
				var refused caddy.APIError
				status := http.StatusInternalServerError
				if errors.As(err, &refused) {
					status, err = refused.HTTPStatus, refused.Err
				}
				_ = c.problem(w, r, status, err.Error())
			}
		})
	}
	page("GET /{$}", c.serveFlags)
	page("GET /flags/{name}", c.serveFlag)
	page("GET /flags/{name}/series", c.serveSeries)
	page("GET /flags/{name}/live", c.serveLive)
	page("POST /flags/{name}/{action}", c.serveAction)
	page("GET /events", c.serveEvents)
	page("GET /banners", c.serveBanners)
	page("GET /audit", c.serveAudit)
	page("GET /lint", c.serveLint)
	page("GET /playground", c.servePlayground)
	page("POST /playground", c.servePlayground)
	page("GET /preview", c.servePreview)
	page("POST /preview", c.servePreview)
	page("GET /static/{file}", c.serveAsset)
	page("/", func(http.ResponseWriter, *http.Request) error {
		return problem(http.StatusNotFound, "There is no such page.")
	})
}

func (c *Console) serveAsset(w http.ResponseWriter, r *http.Request) error {
	a, ok := c.assets[r.PathValue("file")]
	if !ok {
		return problem(http.StatusNotFound, "There is no such file.")
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.tag)
	if matchesETag(r.Header["If-None-Match"], a.tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", a.kind)
	h.Set("Content-Length", strconv.Itoa(len(a.text)))
	_, _ = w.Write(a.text) // it fails when the client has gone
	return nil
}

// formAge is for how long a page's forms hold.
const formAge = 12 * time.Hour

// formToken is in every form, so that no other site can make one.
func (c *Console) formToken(now time.Time) string {
	s := c.app.formKey.signer.Load()
	if s == nil {
		return ""
	}
	return s.signUntil(now.Add(formAge))
}

// readForm reads a form of a page of ours, of so many bytes at most. refusal is what is
// said of one that cannot be read.
func (c *Console) readForm(w http.ResponseWriter, r *http.Request, most int64, refusal error) error {
	r.Body = http.MaxBytesReader(w, r.Body, most)
	if err := r.ParseForm(); err != nil {
		return refusal
	}
	if s := c.app.formKey.signer.Load(); s != nil {
		if until, ok := s.verifyUntil(r.PostFormValue("token")); ok && time.Now().Before(until) {
			return nil
		}
	}
	return problem(http.StatusForbidden, "This page was open for too long, or did not come from here. Load it again; nothing was changed.")
}

// operator is who does something, by the site's authentication.
func operator(r *http.Request) string {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if id, ok := repl.GetString("http.auth.user.id"); ok && id != "" {
			return id
		}
	}
	return "console"
}

// UnmarshalCaddyfile is in caddyfile_console.go.
var (
	_ caddy.Provisioner           = (*Console)(nil)
	_ caddyhttp.MiddlewareHandler = (*Console)(nil)
	_ caddyfile.Unmarshaler       = (*Console)(nil)
)
