package webhook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Format is how events are written for a target.
type Format string

// Formats. The zero value of a [Format] is CloudEvents.
const (
	CloudEvents Format = "cloudevents" // CloudEvents 1.0, structured JSON mode.
	Slack       Format = "slack"       // A message for an incoming webhook of Slack.
	PagerDuty   Format = "pagerduty"   // PagerDuty's Events API v2.
)

const (
	// DefaultTimeout is how long one request may take, MaxTimeout what may be set.
	DefaultTimeout = 10 * time.Second
	MaxTimeout     = 5 * time.Minute

	maxName       = 100
	maxRoutingKey = 64
)

// Target is somewhere that events are sent to. URL, Secret, RoutingKey and the values of Header are secrets: nothing of
// them but the URL's host appears in an error, a [Report], a log or the queue file.
type Target struct {
	// Name tells targets apart in logs, and is what events wait for in the queue: a target whose URL changes under its
	// name gets what waited. 1 to 100 letters, digits and any of . - _ : # [ ]. Empty: the host and 6 digits of a hash
	// of the address without user and password, such as hooks.slack.com#3fa2b1.
	Name string
	// URL is where requests go, absolute, http or https. Empty, for PagerDuty only: [PagerDutyURL].
	URL string
	// Secret signs the requests as [Verify] tells; several, separated by spaces, sign them several times, for the time
	// of a change. Empty: requests are not signed.
	Secret string
	// Format of the bodies; empty: [CloudEvents].
	Format Format
	// Types of the events to send, of those [Types] returns. Empty: all; for PagerDuty tripped, reset, degraded and
	// recovered. Others that are named for PagerDuty trigger an alert of severity info each, which nothing resolves.
	Types []string
	// Header is sent along. Those that the request needs itself are refused.
	Header http.Header
	// Timeout is how long one request may take, answer and all. 0: 10 s.
	Timeout time.Duration
	// RoutingKey is the integration key of a PagerDuty service; for no other format.
	RoutingKey string
}

// String is the name: a target that ends up in a log shows nothing else.
func (t Target) String() string { return t.name() }

// GoString is the name too.
func (t Target) GoString() string { return "webhook.Target(" + t.name() + ")" }

// LogValue is the name too.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.name()) }

// Validate returns everything that is wrong with a target, in one error, without a secret in it.
func (t Target) Validate() error {
	t = t.withDefaults()
	var errs []error
	fault := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	fault("name", checkName(t.Name))
	_, err := parseURL(t.URL)
	fault("url", err)
	_, err = keys(t.Secret)
	if t.Secret != "" {
		fault("secret", err)
	}
	if !slices.Contains([]Format{CloudEvents, Slack, PagerDuty}, t.Format) {
		fault("format", fmt.Errorf("unknown format %q, want cloudevents, slack or pagerduty", t.Format))
	}
	for _, name := range t.Types {
		if !slices.Contains(types, name) {
			fault("types", fmt.Errorf("unknown event type %q, want any of %s", name, strings.Join(types, ", ")))
		}
	}
	for _, name := range sortedNames(t.Header) {
		fault("header", checkHeader(name, t.Header[name]))
	}
	if t.Timeout < 0 || t.Timeout > MaxTimeout {
		fault("timeout", fmt.Errorf("is %v, want at most %v", t.Timeout, MaxTimeout))
	}
	fault("routing key", t.checkRoutingKey())
	return errors.Join(errs...)
}

func (t Target) checkRoutingKey() error {
	switch {
	case t.Format != PagerDuty && t.RoutingKey != "":
		return fmt.Errorf("format %s takes none, want format pagerduty", t.Format)
	case t.Format != PagerDuty:
		return nil
	case t.RoutingKey == "":
		return errors.New("is missing, want the integration key of an Events API v2 integration")
	case !isID(t.RoutingKey) || len(t.RoutingKey) > maxRoutingKey:
		return fmt.Errorf("is not made of 1 to %d letters, digits, - and _", maxRoutingKey)
	case t.URL == PagerDutyURL && len(t.RoutingKey) != 32:
		return fmt.Errorf("is %d characters long, want the 32 of an Events API v2 integration", len(t.RoutingKey))
	}
	return nil
}

// withDefaults returns t with everything set but the name.
func (t Target) withDefaults() Target {
	t.Format = cmp.Or(t.Format, CloudEvents)
	t.Timeout = cmp.Or(t.Timeout, DefaultTimeout)
	if t.Format == PagerDuty {
		t.URL = cmp.Or(t.URL, PagerDutyURL)
	}
	return t
}

// wants tells whether events of a type go to the target, which must have its defaults.
func (t Target) wants(eventType string) bool {
	switch {
	case len(t.Types) > 0:
		return slices.Contains(t.Types, eventType)
	case t.Format == PagerDuty:
		return slices.Contains(pagerDutyTypes, eventType)
	}
	return true
}

// name is Name, or what stands for it when it is empty or none that may be shown. The hash leaves user and password out: those can be weak enough to be guessed by
// it, unlike the rest of an address that is a secret.
func (t Target) name() string {
	if t.Name != "" && checkName(t.Name) == nil {
		return t.Name
	}
	t = t.withDefaults()
	u, err := parseURL(t.URL)
	if err != nil {
		return "unknown"
	}
	u.User = nil
	sum := sha256.Sum256([]byte(u.String() + "\n" + t.RoutingKey))
	name := u.Host + "#" + hex.EncodeToString(sum[:3])
	if checkName(name) != nil {
		name = "#" + hex.EncodeToString(sum[:3])
	}
	return name
}

func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("is %d bytes long, want at most %d", len(name), maxName)
	}
	for _, c := range []byte(name) {
		if !isID(string(c)) && !strings.ContainsRune(".:#[]", rune(c)) {
			return errors.New("want letters, digits and any of . - _ : # [ ]") // It may be an address: not shown.
		}
	}
	return nil
}

// parseURL returns an address, or an error that says nothing of it.
func parseURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("is missing, want one such as https://hooks.example.com/path")
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Opaque != "" || u.Fragment != "" {
		return nil, errors.New("is no absolute http or https address without a fragment, want one such as https://hooks.example.com/path")
	}
	return u, nil
}

// reserved are the headers that a request needs itself.
var reserved = []string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	idHeader, timestampHeader, signatureHeader,
}

func checkHeader(name string, values []string) error {
	token := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !token(c) }) {
		return fmt.Errorf("%q is no name of a header", cut(name, maxName))
	}
	if slices.Contains(reserved, http.CanonicalHeaderKey(name)) {
		return fmt.Errorf("%s is set by the request itself, want another one", name)
	}
	for _, v := range values {
		if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return fmt.Errorf("%s has a value with a control character", name)
		}
	}
	return nil
}

func sortedNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
