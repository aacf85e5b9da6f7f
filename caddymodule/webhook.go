package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

// Webhook is somewhere that events are sent to: trips, resets, overrides, steps of
// rollouts, reloads and their failures, trouble with the disk. Placeholders in its
// texts are resolved when the config is loaded.
type Webhook struct {
	// URL that is posted to, http or https. Default of format pagerduty: PagerDuty's.
	URL string `json:"url,omitempty"`

	// Format is cloudevents (the default), slack or pagerduty.
	Format string `json:"format,omitempty"`

	// Name in logs and metrics, and of what waits in the queue. Default: the host
	// and a few digits.
	Name string `json:"name,omitempty"`

	// Secrets sign what is sent, as Standard Webhooks says; several sign each, for
	// the time of a change. Default: it is not signed.
	Secrets []string `json:"secrets,omitempty"`

	// Events are the types to send, as tripped. Default: all; of format pagerduty
	// tripped, reset, degraded and recovered.
	Events []string `json:"events,omitempty"`

	// Header is sent along.
	Header http.Header `json:"header,omitempty"`

	// Timeout of one request. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// RoutingKey is the integration key of a PagerDuty service.
	RoutingKey string `json:"routing_key,omitempty"`
}

// target resolves the placeholders.
func (w *Webhook) target(repl *caddy.Replacer) (webhook.Target, error) {
	var errs []error
	resolve := func(what, text string) string {
		out, err := resolved(repl, what, text)
		if err != nil {
			errs = append(errs, err)
		}
		return out
	}
	t := webhook.Target{
		Name: w.Name, URL: resolve("url", w.URL), Format: webhook.Format(w.Format), Header: http.Header{},
		Timeout: time.Duration(w.Timeout), RoutingKey: resolve("routing_key", w.RoutingKey),
	}
	var secrets []string
	for _, s := range w.Secrets {
		before := len(errs)
		secret := strings.TrimSpace(resolve("secret", s)) // a file has a line end
		switch {
		case len(errs) > before:
		case secret == "":
			errs = append(errs, errors.New("secret: is empty, want a text as openssl rand -base64 32 makes"))
		case strings.ContainsFunc(secret, unicode.IsSpace):
			errs = append(errs, errors.New("secret: has white space in it, want a text as openssl rand -base64 32 makes; several are several arguments"))
		}
		secrets = append(secrets, secret)
	}
	t.Secret = strings.Join(secrets, " ")
	for _, e := range w.Events {
		t.Types = append(t.Types, "feature_flags."+e)
	}
	for name, values := range w.Header {
		for _, v := range values {
			t.Header.Add(name, resolve("header "+name, v))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return t, err
	}
	return t, t.Validate()
}

// provisionWebhooks checks the webhooks.
func (a *App) provisionWebhooks(repl *caddy.Replacer) error {
	var errs []error
	for i := range a.Webhooks {
		t, err := a.Webhooks[i].target(repl)
		if err != nil {
			errs = append(errs, fmt.Errorf("webhooks[%d]: %w", i, err))
		}
		a.targets = append(a.targets, t)
	}
	return errors.Join(errs...)
}

// messenger sends events to webhooks. It outlives configs, and its queue the
// process; there is none until a config has webhooks, or an earlier process has
// left something to send.
type messenger struct {
	mu     sync.Mutex
	path   string // of the queue; "" is memory only
	begun  bool
	sender *webhook.Sender
	told   func(webhook.Report)
}

const webhooksName = "webhooks.db"

// begin takes the directory into use.
func (m *messenger) begin(dir string, told func(webhook.Report)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if dir != "" {
		m.path = filepath.Join(dir, webhooksName)
	}
	m.begun, m.told = true, told
}

// configure has events go to the targets of the config that speaks.
func (m *messenger) configure(targets []webhook.Target) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun {
		return nil
	}
	if m.sender == nil {
		if _, err := os.Stat(m.path); len(targets) == 0 && (m.path == "" || err != nil) {
			return nil
		}
		m.sender = webhook.Open(m.path, webhook.Options{Told: m.told})
	}
	return m.sender.Configure(targets)
}

// current returns the sender, nil while there is none.
func (m *messenger) current() *webhook.Sender {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sender
}

// send queues news for all who want it. It waits for nothing.
func (m *messenger) send(n news) {
	s := m.current()
	if s == nil {
		return
	}
	data, err := json.Marshal(n.Data)
	if err != nil || n.Data == nil {
		data = nil
	}
	s.Send(webhook.Event{Type: n.Event, Flag: n.Flag, By: n.By, Reason: n.Reason, Time: n.At, Instance: instanceName(), Data: data})
}

// end sends what it can, and leaves the rest in the queue.
func (m *messenger) end() {
	if s := m.current(); s != nil {
		_ = s.Close()
	}
}

// webhooks is part of listener.
func (a *App) webhooks() []webhook.Target { return a.targets }

// retarget has events go where the app that speaks wants them.
func (e *engine) retarget() {
	l := e.running()
	if l == nil {
		return // what waits goes where it was to go
	}
	if err := e.messenger.configure(l.webhooks()); err != nil {
		caddy.Log().Named("feature_flags").Error("webhooks are not as the config says", zap.Error(err))
	}
}

// delivered notes what became of an event.
func (e *engine) delivered(r webhook.Report) {
	result := "delivered"
	switch {
	case r.Dropped > 0:
		result = "dropped"
	case r.Err != nil && r.Final:
		result = "given_up"
	case r.Err != nil:
		result = "failed"
	}
	if r.Target != "" || r.Dropped > 0 {
		webhooksSent.WithLabelValues(r.Target, result).Add(float64(max(1, r.Dropped)))
	}
	a, ok := e.newest().(*App)
	if !ok || r.Err == nil {
		return
	}
	a.quiet.warn(time.Now(), "webhook "+r.Target+" "+result, "a webhook has not been delivered", zap.String("target", r.Target), zap.String("event", r.Type), zap.String("flag", r.Flag),
		zap.Int("attempt", r.Attempt), zap.Bool("given_up", r.Final), zap.Int("dropped", r.Dropped), zap.Error(r.Err))
}
