package webhook

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	const url = "https://hooks.example.com/a"
	key := strings.Repeat("k", 32)
	for _, c := range []struct {
		name   string
		target Target
		want   string // "": fine.
	}{
		{"least", Target{URL: url}, ""},
		{"most", Target{
			Name: "ops-1", URL: "http://u:p@[::1]:8080/x?y=z", Secret: "one whsec_dHdv", Format: CloudEvents, Types: Types(),
			Header: http.Header{"Authorization": {"Bearer x"}}, Timeout: MaxTimeout,
		}, ""},
		{"Slack", Target{URL: url, Format: Slack}, ""},
		{"PagerDuty", Target{Format: PagerDuty, RoutingKey: key}, ""},
		{"PagerDuty elsewhere", Target{URL: url, Format: PagerDuty, RoutingKey: "short"}, ""},
		{"no URL", Target{}, "url: is missing, want one such as https://hooks.example.com/path"},
		{"relative", Target{URL: "/a"}, "url: is no absolute http or https address without a fragment, want one such as https://hooks.example.com/path"},
		{"other scheme", Target{URL: "ftp://host/"}, "url: is no absolute http or https address without a fragment, want one such as https://hooks.example.com/path"},
		{"no host", Target{URL: "https://:443/"}, "url: is no absolute http or https address without a fragment, want one such as https://hooks.example.com/path"},
		{"fragment", Target{URL: url + "#x"}, "url: is no absolute http or https address without a fragment, want one such as https://hooks.example.com/path"},
		{"no address", Target{URL: "https://ho st/%zz"}, "url: is no absolute http or https address without a fragment, want one such as https://hooks.example.com/path"},
		{"name", Target{URL: url, Name: "https://x/"}, "name: want letters, digits and any of . - _ : # [ ]"},
		{"long name", Target{URL: url, Name: strings.Repeat("x", 101)}, "name: is 101 bytes long, want at most 100"},
		{"secret", Target{URL: url, Secret: "fine whsec_x"}, "secret: number 2: is no base64 behind whsec_, want the output of openssl rand -base64 32 there"},
		{"blank secret", Target{URL: url, Secret: " "}, "secret: is empty"},
		{"format", Target{URL: url, Format: "xml"}, `format: unknown format "xml", want cloudevents, slack or pagerduty`},
		{"type", Target{URL: url, Types: []string{Tripped, "tripped"}}, `types: unknown event type "tripped", want any of ` + strings.Join(types, ", ")},
		{"header name", Target{URL: url, Header: http.Header{"a b": {"x"}}}, `header: "a b" is no name of a header`},
		{"header value", Target{URL: url, Header: http.Header{"X-A": {"x\r\ny"}}}, "header: X-A has a value with a control character"},
		{"own header", Target{URL: url, Header: http.Header{"webhook-id": {"x"}}}, "header: webhook-id is set by the request itself, want another one"},
		{"timeout", Target{URL: url, Timeout: time.Hour}, "timeout: is 1h0m0s, want at most 5m0s"},
		{"negative timeout", Target{URL: url, Timeout: -1}, "timeout: is -1ns, want at most 5m0s"},
		{"routing key", Target{URL: url, RoutingKey: key}, "routing key: format cloudevents takes none, want format pagerduty"},
		{"no routing key", Target{Format: PagerDuty}, "routing key: is missing, want the integration key of an Events API v2 integration"},
		{"odd routing key", Target{Format: PagerDuty, RoutingKey: "a key"}, "routing key: is not made of 1 to 64 letters, digits, - and _"},
		{"short routing key", Target{Format: PagerDuty, RoutingKey: "short"}, "routing key: is 5 characters long, want the 32 of an Events API v2 integration"},
		{"several", Target{Format: "x", Timeout: -1}, "url: is missing, want one such as https://hooks.example.com/path\n" +
			`format: unknown format "x", want cloudevents, slack or pagerduty` + "\ntimeout: is -1ns, want at most 5m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := errorText(c.target.Validate()); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestConfigureRefusesAsAWhole(t *testing.T) {
	s := Open("", Options{})
	defer s.Close()
	r := listen(t, nil)
	configure(t, s, Target{URL: r.URL, Name: "one"})
	err := s.Configure([]Target{{URL: r.URL, Name: "two"}, {URL: r.URL, Name: "two"}, {URL: "https://secret-host?password", Name: "https://u:hunter2@x/", Timeout: -1}})
	text := errorText(err)
	if !strings.HasPrefix(text, "webhook 2 (two): name: another one has it, want different names\nwebhook 3 (secret-host#") ||
		strings.Contains(text, "hunter2") || strings.Contains(text, "password") {
		t.Errorf("got %s", text)
	}
	s.Send(Event{ID: "a", Type: Tripped})
	eventually(t, "sent to the old target", func() bool { return len(r.got()) == 1 })
}

func TestNames(t *testing.T) {
	name := func(tg Target) string { return newDestination(tg).name }
	a := name(Target{URL: "https://hooks.slack.com/services/T0/B0/abc", Format: Slack})
	if !strings.HasPrefix(a, "hooks.slack.com#") || len(a) != len("hooks.slack.com#123456") {
		t.Errorf("name %q", a)
	}
	if b := name(Target{URL: "https://hooks.slack.com/services/T0/B0/abd"}); a == b {
		t.Errorf("two addresses have one name %q", a)
	}
	if x, y := name(Target{URL: "https://u:one@host/"}), name(Target{URL: "https://host/"}); x != y {
		t.Errorf("the password shows in the names %q, %q", x, y)
	}
	x, y := name(Target{Format: PagerDuty, RoutingKey: strings.Repeat("x", 32)}), name(Target{Format: PagerDuty, RoutingKey: strings.Repeat("y", 32)})
	if x == y || !strings.HasPrefix(x, "events.pagerduty.com#") {
		t.Errorf("names %q, %q of two services", x, y)
	}
	if got := name(Target{URL: "https://h%C3%A9.example/"}); !strings.HasPrefix(got, "#") || checkName(got) != nil {
		t.Errorf("name %q of a host of other letters", got)
	}
}

func TestTargetsShowTheirNamesOnly(t *testing.T) {
	secret := Target{URL: "https://u:hunter2@hooks.example/T0KEN", Secret: "s3cret", RoutingKey: "r0ute", Header: http.Header{"A": {"bearer"}}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "target", secret)
	all := fmt.Sprintf("%v %+v %#v %s %v", secret, secret, secret, secret, &secret) + log.String()
	for _, s := range []string{"hunter2", "T0KEN", "s3cret", "r0ute", "bearer"} {
		if strings.Contains(all, s) {
			t.Errorf("%s shows in %s", s, all)
		}
	}
	if !strings.Contains(all, "hooks.example#") {
		t.Errorf("no name in %s", all)
	}
}

func TestWants(t *testing.T) {
	f := func(tg Target, want ...string) {
		t.Helper()
		var got []string
		for _, name := range append(Types(), "feature_flags.sung") {
			if tg.withDefaults().wants(name) {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v wants %q, want %q", tg.Types, got, want)
		}
	}
	f(Target{}, append(Types(), "feature_flags.sung")...)
	f(Target{Format: Slack, Types: []string{Held}}, Held)
	f(Target{Format: PagerDuty}, Tripped, Reset, Degraded, Recovered)
	f(Target{Format: PagerDuty, Types: []string{Reloaded, Tripped}}, Tripped, Reloaded)
}
