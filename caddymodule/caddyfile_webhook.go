package caddymodule

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

// parseWebhook reads the option `webhook` of the global feature_flags.
func (a *App) parseWebhook(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	var w Webhook
	if len(args) > 0 && slices.Contains(webhookFormats, args[0]) {
		w.Format, args = args[0], args[1:]
	}
	switch {
	case len(args) == 1:
		w.URL = args[0]
	case len(args) > 1 || w.Format != string(webhook.PagerDuty): // without the addresses: they may be secret
		return d.Errf("webhook: want one address, or one of %s and an address, got %d arguments", strings.Join(webhookFormats, ", "), len(args))
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "secret":
			err = some(d, "webhook: secret", "one or more secrets, as {env.WEBHOOK_SECRET}", &w.Secrets)
		case "format":
			if err = one(d, "webhook: format", strings.Join(webhookFormats, ", "), &w.Format); err == nil && !slices.Contains(webhookFormats, w.Format) {
				err = d.Errf("webhook: format: want one of %s, got %q", strings.Join(webhookFormats, ", "), w.Format)
			}
		case "name":
			err = one(d, "webhook: name", "a name", &w.Name)
		case "events":
			if err = some(d, "webhook: events", "types of events as tripped reset", &w.Events); err == nil {
				err = checkEvents(d, w.Events)
			}
		case "header":
			err = header(d, "webhook: header", &w.Header)
		case "timeout":
			err = durationOption(d, "webhook: timeout", &w.Timeout)
		case "routing_key":
			err = one(d, "webhook: routing_key", "the integration key, as {env.PAGERDUTY_KEY}", &w.RoutingKey)
		default:
			err = unknownOption(d, "webhook", option, "secret", "format", "name", "events", "header", "timeout", "routing_key")
		}
		if err != nil {
			return err
		}
	}
	a.Webhooks = append(a.Webhooks, w)
	return nil
}

var webhookFormats = []string{string(webhook.CloudEvents), string(webhook.Slack), string(webhook.PagerDuty)}

func checkEvents(d *caddyfile.Dispenser, events []string) error {
	var known []string
	for _, t := range webhook.Types() {
		known = append(known, strings.TrimPrefix(t, "feature_flags."))
	}
	for _, e := range events {
		if !slices.Contains(known, e) {
			return d.Errf("webhook: events: unknown type %q; want %s", e, strings.Join(known, ", "))
		}
	}
	return nil
}
