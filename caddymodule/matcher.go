package caddymodule

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types/ref"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Match matches requests for which a flag is on, or serves one of the given
// variants.
type Match struct {
	// Flag that is asked.
	Flag string `json:"flag"`

	// Variants of which one must be served; `off` may be among them. Default:
	// any, as long as the flag is on.
	Variants []string `json:"variants,omitempty"`

	app *App
}

// CaddyModule returns the module's information.
func (*Match) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.feature", New: func() caddy.Module { return new(Match) }}
}

// Provision finds the app.
func (m *Match) Provision(ctx caddy.Context) error {
	if m.Flag == "" {
		return fmt.Errorf("feature: want the name of a flag")
	}
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	m.app = app
	app.mention("the matcher feature", []string{m.Flag})
	return nil
}

// MatchWithError asks the flag. It never fails: a flag that cannot be decided
// is off.
func (m *Match) MatchWithError(r *http.Request) (matched bool, err error) {
	defer m.app.survive("matching")
	rq := requestOf(r)
	if rq == nil {
		rq = newRequest(m.app, r)
		rq.readSticky(r, false)
	}
	i := rq.rules.Index(m.Flag)
	d := rq.decideByName(m.Flag)
	rq.varyBy(i)
	if len(m.Variants) == 0 {
		return d.Enabled, nil
	}
	return slices.Contains(m.Variants, d.Variant), nil
}

// UnmarshalCaddyfile reads
//
//	feature <flag> [<variant>...]
func (m *Match) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		if m.Flag != "" {
			return d.Err("feature: one flag a matcher; for several write several named matchers")
		}
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.Err("feature: want the name of a flag, then any variants")
		}
		m.Flag, m.Variants = args[0], args[1:]
		if len(m.Variants) == 0 {
			m.Variants = nil
		}
		if d.NextBlock(d.Nesting()) {
			return d.Errf("feature: unknown option %q; it has no block", d.Val())
		}
	}
	return nil
}

// CELLibrary makes feature('NAME') and feature('NAME', 'VARIANT', …) usable in
// `expression`. Caddy calls it on an unprovisioned value.
func (*Match) CELLibrary(ctx caddy.Context) (cel.Library, error) {
	return caddyhttp.CELMatcherImpl("feature", "feature_match_request_list", []*cel.Type{cel.ListType(cel.StringType)},
		func(data ref.Val) (caddyhttp.RequestMatcherWithError, error) {
			args, err := data.ConvertToNative(reflect.TypeFor[[]string]())
			if err != nil {
				return nil, fmt.Errorf("feature: want names in quotes: %w", err)
			}
			words := args.([]string)
			if len(words) == 0 {
				return nil, fmt.Errorf("feature: want the name of a flag, then any variants")
			}
			m := &Match{Flag: words[0], Variants: words[1:]}
			return m, m.Provision(ctx)
		})
}

var (
	_ caddy.Provisioner                 = (*Match)(nil)
	_ caddyhttp.RequestMatcherWithError = (*Match)(nil)
	_ caddyfile.Unmarshaler             = (*Match)(nil)
	_ caddyhttp.CELLibraryProducer      = (*Match)(nil)
)
