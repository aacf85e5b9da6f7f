package caddymodule

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

func init() {
	caddy.RegisterModule((*App)(nil))
	caddy.RegisterModule((*Handler)(nil))
	caddy.RegisterModule((*Route)(nil))
	caddy.RegisterModule((*Match)(nil))
	caddy.RegisterModule((*Policy)(nil))
	caddy.RegisterModule((*Admin)(nil))
}

// App holds the definitions of all feature flags and what was flipped at run
// time. Bad definitions refuse the config; definitions that turn bad later
// leave the last good ones in force.
type App struct {
	// Sources of definitions, merged in order: of a flag that several define
	// the last one holds.
	Sources []Source `json:"sources,omitempty"`

	// Environment that the flags' `environments` are compared with.
	// Placeholders are resolved when the config is loaded. Default: production.
	Environment string `json:"environment,omitempty"`

	// Webhooks are told what happens.
	Webhooks []Webhook `json:"webhooks,omitempty"`

	// State says where trips, overrides and the audit log are kept.
	State *State `json:"state,omitempty"`

	ctx         caddy.Context
	log         *zap.Logger
	quiet       *quietLog
	environment string
	dir         string // of the state; set while the engine is held
	engine      *engine
	events      *caddyevents.App
	sources     []*liveSource

	rules    atomic.Pointer[rules]
	program  atomic.Pointer[evaluator.Program]
	reload   sync.Mutex // orders reloads: compiling takes long and must not hold up a trip
	mu       sync.Mutex // orders writers of rules and program
	failing  atomic.Pointer[reloadFailure]
	starters []func()
	checks   []func() error
	contexts contextLog

	hasHandler bool
	hasConsole bool
	mentions   []mention
	targets    []webhook.Target

	clients atomic.Pointer[clientFlags]
	making  sync.Mutex                    // of them
	tagKey  []byte                        // of OFREP, by the config
	bare    sync.Once                     // warns of clients who are believed
	asking  origins                       // whose pages may ask, of all sites
	texts   []string                      // of the sites: what decides for whom
	swapped atomic.Pointer[chan struct{}] // closed when other rules are in force

	streamKey storedKey // of OFREP
	voters    storedKey // tells people who give feedback apart
	formKey   storedKey // of the console
	pins      pins
	overrides []*signer // of the sites' links for testers

	running  context.Context // until Stop
	stop     context.CancelFunc
	watching sync.WaitGroup
}

// State says where run-time state is kept.
type State struct {
	// Type is local (a directory, the default) or memory (lost when Caddy
	// ends).
	Type string `json:"type,omitempty"`

	// Path of the directory; placeholders are resolved when the config is
	// loaded. Default: feature_flags under Caddy's data directory.
	Path string `json:"path,omitempty"`
}

// mention is a flag that the config names.
type mention struct{ where, flag string }

// CaddyModule returns the module's information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "feature_flags", New: func() caddy.Module { return new(App) }}
}

// appOf returns the app of the config being loaded; one without any source
// when the config has none.
func appOf(ctx caddy.Context) (*App, error) {
	v, err := ctx.App("feature_flags")
	if err != nil {
		return nil, fmt.Errorf("loading feature_flags: %w", err)
	}
	return v.(*App), nil
}

// Provision reads and checks all definitions.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	a.log = ctx.Logger()
	a.quiet = newQuietLog(a.log)
	a.running, a.stop = context.WithCancel(context.Background())
	repl := caddy.NewReplacer()
	environment, err := repl.ReplaceOrErr(a.Environment, true, true)
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	a.environment = cmp.Or(environment, "production")

	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading events: %w", err)
	}
	a.events = events.(*caddyevents.App)

	dir, err := a.State.directory(repl)
	if err != nil {
		return err
	}
	if a.engine, err = loadEngine(dir); err != nil {
		return err
	}
	a.dir = dir
	a.engine.follow(a)
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if err := a.provisionWebhooks(repl); err != nil {
		return err
	}
	if err := a.openSources(repl); err != nil {
		return err
	}
	program, err := a.firstProgram()
	if err != nil {
		return fmt.Errorf("feature flags:\n%w", err)
	}
	a.take(program)
	return nil
}

func (s *State) directory(repl *caddy.Replacer) (string, error) {
	if s == nil {
		s = &State{}
	}
	switch s.Type {
	case "", "local":
	case "memory":
		if s.Path != "" {
			return "", fmt.Errorf("state: memory takes no path, got %q", s.Path)
		}
		return "", nil
	default:
		return "", fmt.Errorf("state: want local or memory, got %q", s.Type)
	}
	path, err := repl.ReplaceOrErr(s.Path, true, true)
	if err != nil {
		return "", fmt.Errorf("state: %w", err)
	}
	if path == "" {
		return filepath.Join(caddy.AppDataDir(), "feature_flags"), nil
	}
	return filepath.Abs(path)
}

// take puts a program in force.
func (a *App) take(program *evaluator.Program) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.program.Store(program)
	a.swap()
}

// Start puts the definitions in force and begins to watch their sources.
func (a *App) Start() error {
	for _, check := range a.checks {
		if err := check(); err != nil {
			return err
		}
	}
	a.engine.begin()
	a.engine.listen(a)
	a.stateChanged()
	a.pins.key.start(a.ctx, a.log)
	a.streamKey.start(a.ctx, a.log)
	a.voters.start(a.ctx, a.log)
	a.formKey.start(a.ctx, a.log)
	for _, f := range a.starters {
		f()
	}
	a.checkMentions()
	a.watchSources()
	a.log.Info("feature flags in force", zap.Int("flags", a.rules.Load().Len()), zap.String("environment", a.environment), zap.String("state", cmp.Or(a.dir, "memory")))
	a.engine.firstHealth()
	return nil
}

// Stop ends the watching; requests under way go on with what they have.
func (a *App) Stop() error {
	a.engine.telling.drain(time.Second)
	a.stop()
	a.watching.Wait()
	a.engine.leave(a)
	return nil
}

// Cleanup gives the engine back.
func (a *App) Cleanup() error {
	if a.stop != nil {
		a.stop()
	}
	if a.engine != nil {
		a.engine.forget(a)
		releaseEngine(a.dir)
	}
	return nil
}

// onStart has f called when the config goes into force.
func (a *App) onStart(f func()) { a.starters = append(a.starters, f) }

// onCheck has f asked when all of the config is provisioned; its error refuses the
// config.
func (a *App) onCheck(f func() error) { a.checks = append(a.checks, f) }

// siteTexts tell the sites of one config from those of another.
func (a *App) siteTexts() []string { return slices.Sorted(slices.Values(a.texts)) }

// mention notes flags that the config names, to warn of unknown ones.
func (a *App) mention(where string, flags []string) {
	for _, f := range flags {
		a.mentions = append(a.mentions, mention{where, f})
	}
}

func (a *App) checkMentions() {
	r := a.rules.Load()
	for _, m := range a.mentions {
		if r.Index(m.flag) < 0 {
			a.log.Warn("the config names a flag that nobody defines; it is off", zap.String("flag", m.flag), zap.String("in", m.where))
		}
	}
}

// swap makes and publishes rules of the program and the state. The caller must
// hold mu.
func (a *App) swap() {
	program := a.program.Load()
	r := bind(program, a.engine)
	a.engine.configure(a, r, time.Now(), a.environment)
	a.rules.Store(r)
	next := make(chan struct{})
	if before := a.swapped.Swap(&next); before != nil {
		close(*before)
	}
}

// stateChanged is part of listener.
func (a *App) stateChanged() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.program.Load() != nil { // else it is being provisioned
		a.swap()
	}
}

// inForce is part of listener.
func (a *App) inForce(flag string, now time.Time) bool {
	r := a.rules.Load()
	i := r.Index(flag)
	return i >= 0 && r.InForce(i, a.environment, now)
}

// flag is part of listener.
func (a *App) flag(name string) *evaluator.Flag {
	r := a.rules.Load()
	if i := r.Index(name); i >= 0 {
		return r.Definition(i)
	}
	return nil
}

// definitionHash tells one definition of a flag from another.
func definitionHash(def *evaluator.Flag) string {
	sum := sha256.Sum256(def.Raw)
	return hex.EncodeToString(sum[:8])
}

// probeShare is part of listener.
func (a *App) probeShare(flag string) (evaluator.Share, bool) {
	r := a.rules.Load()
	i := r.Index(flag)
	if i < 0 || !r.Definition(i).Guard.Enabled {
		return 0, false
	}
	return r.ProbeShare(i, a.engine.shareOf(r.Definition(i)))
}

// whyOff is part of listener.
func (a *App) whyOff(flag string, now time.Time) string {
	r := a.rules.Load()
	i := r.Index(flag)
	if i < 0 {
		return "not defined"
	}
	return a.offIn(r, i, now)
}

// offIn is whyOff in rules that have the flag.
func (a *App) offIn(r *rules, i int, now time.Time) string {
	if r.State(i).Probing {
		return "half_open"
	}
	return r.WhyOff(i, a.environment, now)
}

// report tells of this config, unless a later one runs already, which watches
// the same sources.
func (a *App) report(n news) {
	if a.engine.newest() == listener(a) {
		a.engine.tell(n)
	}
}

// survive keeps a panic in our own code from failing a request; deferred.
func (a *App) survive(doing string) {
	if p := recover(); p != nil {
		panics.Inc()
		a.quiet.warn(time.Now(), "panic", "feature flags panicked; the request goes on", zap.String("while", doing), zap.Any("panic", p), zap.Stack("stack"))
	}
}

// survive is the same where no app is at hand.
func survive(doing string) {
	if p := recover(); p != nil {
		panics.Inc()
		caddy.Log().Named("feature_flags").Error("panicked", zap.String("while", doing), zap.Any("panic", p), zap.Stack("stack"))
	}
}

// instanceName tells this Caddy from others in trips.
func instanceName() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return strings.ToLower(host)
}

var (
	_ caddy.App         = (*App)(nil)
	_ caddy.Provisioner = (*App)(nil)
	_ listener          = (*App)(nil)
)
