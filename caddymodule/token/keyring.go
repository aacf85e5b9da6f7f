package token

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// startWait is how long Start waits for the first answer of a JWKS URL.
const startWait = 3 * time.Second

// keyring holds the key set in force: keys given in the config, and those of a JWKS, which a goroutine keeps fresh. It
// is the locked shell around [keySet].
type keyring struct {
	fixed    []*key
	source   source // nil without a JWKS
	every    time.Duration
	purge    func()
	onChange func(Health)

	set  atomic.Pointer[keySet]
	asks chan struct{}

	mu      sync.Mutex
	health  Health
	cancel  context.CancelFunc // nil when not running
	stopped chan struct{}      // closed when the goroutine has ended
}

func newKeyring(cfg *Config, fixed []*key, warnings []string, purge func()) (*keyring, error) {
	r := &keyring{fixed: fixed, every: cfg.RefreshEvery, purge: purge, asks: make(chan struct{}, 1)}
	r.health.Warnings = warnings
	r.set.Store(newKeySet(fixed, nil))
	switch {
	case cfg.JWKSURL != "":
		r.source = newURLSource(cfg.JWKSURL, cfg.HTTPClient)
	case cfg.JWKSFile != "":
		r.source, r.every = &fileSource{path: cfg.JWKSFile}, fileEvery
		if err := r.refresh(context.Background()); err != nil {
			return nil, err
		}
	}
	r.onChange = cfg.OnChange // from now on: New reports by its error
	return r, nil
}

// ask requests a refresh of the JWKS. It never blocks; [keyring.run] decides whether there is one.
func (r *keyring) ask() {
	select {
	case r.asks <- struct{}{}:
	default:
	}
}

// Start fetches the JWKS and keeps it fresh in the background until ctx is done or [Verifier.Stop] is called. It
// returns when the first fetch has ended, well or badly, after 3 seconds at most; when ctx is done; or at once when
// there is no JWKSURL. A second Start without a Stop in between does nothing.
func (v *Verifier[T]) Start(ctx context.Context) { v.ring.start(ctx) }

// Stop ends the background refresh and returns when it has ended. Verify goes on with the keys there are. It is safe to
// call twice, or without Start, but not from OnChange, which it waits for.
func (v *Verifier[T]) Stop() { v.ring.stop() }

// Inherit takes over the keys that another verifier has read from the same JWKS, so that a changed config does not begin
// without keys while the issuer cannot be reached. Call it before Start; the next good answer replaces them.
func (v *Verifier[T]) Inherit(from *Verifier[T]) {
	var keys []*key
	for _, k := range from.ring.set.Load().keys {
		if !slices.Contains(from.ring.fixed, k) {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		v.ring.swap(slices.Concat(v.ring.fixed, keys))
	}
}

func (r *keyring) start(ctx context.Context) {
	if r.source == nil {
		return
	}
	r.mu.Lock()
	if r.cancel != nil {
		r.mu.Unlock()
		return
	}
	ctx, r.cancel = context.WithCancel(ctx)
	stopped, first := make(chan struct{}), make(chan struct{})
	previous := r.stopped
	r.stopped = stopped
	r.mu.Unlock()

	go func() {
		defer close(stopped)
		if previous != nil {
			<-previous // a source has one reader at a time
		}
		r.run(ctx, first)
	}()
	if _, ok := r.source.(*fileSource); ok {
		return // New has read it
	}
	timer := time.NewTimer(startWait)
	defer timer.Stop()
	select {
	case <-first:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *keyring) stop() {
	r.mu.Lock()
	cancel, stopped := r.cancel, r.stopped
	r.cancel = nil
	r.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if stopped != nil {
		<-stopped
	}
}

// refresh reads the source once and puts its keys in force. A bad answer changes nothing but the health.
func (r *keyring) refresh(ctx context.Context) error {
	began := time.Now()
	body, changed, err := r.source.load(ctx)
	var keys []*key
	var skipped []string
	if err == nil && changed {
		if keys, skipped, err = parseJWKS(body); err == nil {
			r.source.accepted()
		} else {
			err = fmt.Errorf("jwt: jwks: %w", err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // stopped: says nothing about the source
	}

	var swapped, purged bool
	if err == nil && changed {
		swapped, purged = r.swap(slices.Concat(r.fixed, keys))
	}
	if purged {
		r.purge()
	}
	health, turned := r.record(began, err, changed, skipped)
	if r.onChange != nil && (turned || swapped) {
		r.onChange(health)
	}
	return err
}

// swap puts keys in force and reports whether they differ from those before and whether any of those is gone. Only the
// goroutine of run, and newKeyring before it, call it.
func (r *keyring) swap(keys []*key) (swapped, purged bool) {
	previous := r.set.Load()
	if previous.equal(keys) {
		return false, false
	}
	next := newKeySet(keys, previous)
	r.set.Store(next)
	return true, next.epoch != previous.epoch
}
