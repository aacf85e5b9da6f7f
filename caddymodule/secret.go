package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// resolved replaces the placeholders of a text that may be a secret, which the error
// does not tell.
func resolved(repl *caddy.Replacer, what, text string) (string, error) {
	out, err := repl.ReplaceOrErr(text, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: has a placeholder that is not known, or that stands for nothing", what)
	}
	return out, nil
}

// storedKey signs by a secret of our own making in Caddy's storage, which instances
// may share. The zero storedKey signs nothing.
type storedKey struct {
	purpose string
	signer  atomic.Pointer[signer] // nil: none yet
}

func (k *storedKey) name() string { return "feature_flags/" + k.purpose + ".key" }

// use has the key made when the config goes into force. One that is there already
// is read at once, which leaves no trace of a config that is only validated.
func (k *storedKey) use(ctx caddy.Context, purpose string) {
	if k.purpose != "" {
		return
	}
	k.purpose = purpose
	if secret, err := ctx.Storage().Load(ctx, k.name()); err == nil {
		k.signBy(string(secret))
	}
}

// start makes the key where it is wanted and there is none.
func (k *storedKey) start(ctx caddy.Context, log *zap.Logger) {
	if k.purpose == "" || k.signer.Load() != nil {
		return
	}
	secret, err := sharedSecret(ctx, ctx.Storage(), k.name())
	if secret == "" {
		log.Warn("a key cannot be kept in Caddy's storage: what it signs ends with this config", zap.String("of", k.purpose), zap.Error(err))
		secret = rand.Text()
	}
	k.signBy(secret)
}

func (k *storedKey) signBy(secret string) {
	if s, err := newSigner(k.purpose, secret); err == nil {
		k.signer.Store(s)
	}
}

// sharedSecret reads a secret, or makes it; "" tells that it can do neither, and why.
func sharedSecret(ctx context.Context, storage certmagic.Storage, name string) (secret string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := storage.Lock(ctx, name); err != nil {
		return "", err
	}
	defer func() { _ = storage.Unlock(ctx, name) }()
	text, err := storage.Load(ctx, name)
	if err == nil && len(text) >= leastSecret {
		return string(text), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	secret = rand.Text()
	if err := storage.Store(ctx, name, []byte(secret)); err != nil {
		return "", err
	}
	return secret, nil
}
