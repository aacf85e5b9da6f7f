package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/caddymodule/token"
	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// JWT verifies tokens, so that attributes can be taken from their claims. A
// token is believed whole or not at all: with a wrong signature, algorithm,
// issuer or audience, expired or oversized, it gives nobody an attribute.
type JWT struct {
	// From are the places of the token, asked in order. Default: the
	// Authorization header.
	From []TokenPlace `json:"from,omitempty"`

	// Secret is the key of HS256, HS384 and HS512. Placeholders are resolved
	// when the config is loaded.
	Secret string `json:"secret,omitempty"`

	// PublicKeys are PEM files with public keys or certificates.
	PublicKeys []string `json:"public_keys,omitempty"`

	// JWKS is the http(s) address or the path of a JSON Web Key Set. An address
	// is fetched at start, every five minutes, and at most once in ten seconds
	// when a token names an unknown key; no request waits for it.
	JWKS string `json:"jwks,omitempty"`

	// Algorithms that are accepted. Default: what the keys given can verify.
	Algorithms []string `json:"algorithms,omitempty"`

	// Issuer that `iss` must be. Default: not looked at.
	Issuer string `json:"issuer,omitempty"`

	// Audience, one of which `aud` must have. Default: not looked at.
	Audience []string `json:"audience,omitempty"`

	// Leeway for clocks that differ. Default: none.
	Leeway caddy.Duration `json:"leeway,omitempty"`

	// OnInvalid is what becomes of a request with a bad token: anonymous (the
	// default) goes on without claims, reject answers 401. A request without a
	// token always goes on.
	OnInvalid string `json:"on_invalid,omitempty"`

	// Cache is how many verified tokens are kept. Default: 4096.
	Cache int `json:"cache,omitempty"`

	paths    []string // of the claims wanted
	verifier *verifier
	poolKey  string
	quiet    *quietLog
}

// TokenPlace is where a token may stand in a request.
type TokenPlace struct {
	// In is header, cookie or query.
	In string `json:"in"`

	// Name of the header (a leading "Bearer " is taken off), cookie or query
	// parameter.
	Name string `json:"name"`
}

func (p TokenPlace) header() []string {
	switch p.In {
	case "header":
		return []string{http.CanonicalHeaderKey(p.Name)}
	case "cookie":
		return []string{"Cookie"}
	}
	return nil
}

func (p TokenPlace) read(r *http.Request) string {
	switch p.In {
	case "header":
		values := r.Header[p.Name]
		if len(values) == 0 {
			return ""
		}
		v := values[0]
		if len(v) > 7 && strings.EqualFold(v[:7], "Bearer ") {
			return strings.TrimSpace(v[7:])
		}
		if p.Name == "Authorization" {
			return "" // Basic and its like are no tokens
		}
		return strings.TrimSpace(v)
	case "cookie":
		return cookieValue(r, p.Name)
	}
	if r.URL.RawQuery == "" {
		return ""
	}
	return r.URL.Query().Get(p.Name)
}

// verifier lives over reloads, so that cached keys keep working when the
// issuer is gone at that moment.
type verifier struct {
	*token.Verifier[[]evaluator.Value]
	jwks  string // address of its key set; "" without
	start sync.Once
}

// Destruct is part of caddy.Destructor.
func (v *verifier) Destruct() error {
	v.Stop()
	return nil
}

var verifiers = caddy.NewUsagePool()

func (j *JWT) provision(repl *caddy.Replacer, log *zap.Logger, sources []AttributeSource) error {
	if len(j.From) == 0 {
		j.From = []TokenPlace{{In: "header", Name: "Authorization"}}
	}
	for i := range j.From {
		if j.From[i].In == "header" {
			j.From[i].Name = http.CanonicalHeaderKey(j.From[i].Name)
		}
	}
	switch j.OnInvalid {
	case "":
		j.OnInvalid = "anonymous"
	case "anonymous", "reject":
	default:
		return fmt.Errorf("jwt: on_invalid: want anonymous or reject, got %q", j.OnInvalid)
	}
	cfg, err := j.config(repl)
	if err != nil {
		return err
	}
	for _, s := range sources {
		if s.From == "jwt" {
			j.paths = append(j.paths, s.Key)
		}
	}
	j.quiet = newQuietLog(log)
	j.poolKey = configKey(cfg, j.paths)
	pooled, known, err := verifiers.LoadOrNew(j.poolKey, func() (caddy.Destructor, error) {
		paths := slices.Clone(j.paths)
		v, err := token.New(cfg, func(claims map[string]any) []evaluator.Value {
			out := make([]evaluator.Value, len(paths))
			for i, p := range paths {
				if c, ok := token.Lookup(claims, p); ok {
					out[i] = evaluator.Of(c)
				}
			}
			return out
		})
		return &verifier{Verifier: v, jwks: cfg.JWKSURL}, err
	})
	if err != nil {
		j.poolKey = ""
		return err
	}
	j.verifier = pooled.(*verifier)
	if !known && cfg.JWKSURL != "" {
		// An edit of this block must not lose the keys while the issuer is gone.
		verifiers.Range(func(_, other any) bool {
			if o, ok := other.(*verifier); ok && o != j.verifier && o.jwks == cfg.JWKSURL {
				j.verifier.Inherit(o.Verifier)
			}
			return true
		})
	}
	for _, w := range j.verifier.Health().Warnings {
		log.Warn("jwt: "+w, zap.String("what_to_do", "use a longer secret"))
	}
	return nil
}

// config resolves placeholders and reads key files.
func (j *JWT) config(repl *caddy.Replacer) (token.Config, error) {
	cfg := token.Config{Algorithms: j.Algorithms, Leeway: time.Duration(j.Leeway), CacheSize: j.Cache}
	var errs []error
	resolve := func(what, text string) string {
		out, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			errs = append(errs, fmt.Errorf("jwt: %s: %w", what, err))
		} else if text != "" && out == "" {
			errs = append(errs, fmt.Errorf("jwt: %s: %s resolves to nothing", what, text))
		}
		return out
	}
	if s := resolve("secret", j.Secret); s != "" {
		cfg.Secret = []byte(s)
	}
	cfg.Issuer = resolve("issuer", j.Issuer)
	for _, a := range j.Audience {
		cfg.Audience = append(cfg.Audience, resolve("audience", a))
	}
	for _, file := range j.PublicKeys {
		pem, err := os.ReadFile(resolve("public_key", file))
		if err != nil {
			errs = append(errs, fmt.Errorf("jwt: public_key: %w", err))
		}
		cfg.PublicKeys = append(cfg.PublicKeys, pem)
	}
	if jwks := resolve("jwks", j.JWKS); strings.Contains(jwks, "://") {
		cfg.JWKSURL = jwks
	} else {
		cfg.JWKSFile = jwks
	}
	return cfg, errors.Join(errs...)
}

// configKey names a verifier in the pool without holding the secret.
func configKey(cfg token.Config, paths []string) string {
	cfg.OnChange, cfg.HTTPClient = nil, nil
	text, _ := json.Marshal(struct {
		Config any
		Paths  []string
	}{[]any{cfg.Secret, cfg.PublicKeys, cfg.JWKSURL, cfg.JWKSFile, cfg.Algorithms, cfg.Issuer, cfg.Audience, cfg.Leeway, cfg.CacheSize}, paths})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// start begins to fetch keys; it waits for the first answer a few seconds at
// most.
func (j *JWT) start() {
	j.verifier.start.Do(func() { j.verifier.Start(context.Background()) })
}

func (j *JWT) cleanup() {
	if j.poolKey != "" {
		_, _ = verifiers.Delete(j.poolKey)
		j.poolKey = ""
	}
}

// claims returns the values of the claims that the context asks for. No token
// gives none, and so does a bad one; the error is for a bad token that is to be
// rejected.
func (j *JWT) claims(r *http.Request, now time.Time) (values []evaluator.Value, err error) {
	defer func() {
		if p := recover(); p != nil { // a token that is not known to be good is bad
			panics.Inc()
			values, err = nil, j.refuse(now, "panic", "")
		}
	}()
	return j.verify(r, now)
}

func (j *JWT) verify(r *http.Request, now time.Time) ([]evaluator.Value, error) {
	for _, place := range j.From {
		raw := place.read(r)
		if raw == "" {
			continue
		}
		values, err := j.verifier.Verify(now, raw)
		if err == nil {
			return values, nil
		}
		return nil, j.refuse(now, token.Cause(err), place.In)
	}
	return nil, nil
}

// refuse counts and tells of a bad token; the error answers the request with
// 401 where bad tokens are to be rejected.
func (j *JWT) refuse(now time.Time, cause, in string) error {
	tokensRefused.WithLabelValues(cause).Inc()
	j.quiet.warn(now, cause, "token not accepted", zap.String("cause", cause), zap.String("in", in), zap.String("then", j.OnInvalid))
	if j.OnInvalid == "reject" {
		return caddyhttp.Error(http.StatusUnauthorized, fmt.Errorf("feature_flags: token not accepted: %s", cause))
	}
	return nil
}
