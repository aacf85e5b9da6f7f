package tests

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

// receiver is a system that is told of events.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int // of its answers; 0: it does not answer
	got    []received
}

type received struct {
	header http.Header
	body   string
}

func newReceiver(t *testing.T, status int) *receiver {
	t.Helper()
	rc := &receiver{status: status}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rc.mu.Lock()
		status := rc.status
		if status/100 == 2 {
			rc.got = append(rc.got, received{r.Header, string(body)})
		}
		rc.mu.Unlock()
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(rc.Close)
	return rc
}

func (rc *receiver) answers(status int) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.status = status
}

// events waits for n events, and gives their bodies.
func (rc *receiver) events(t *testing.T, n int) []received {
	t.Helper()
	var got []received
	eventually(t, 20*time.Second, "events have not come: "+itoa(n), func() bool {
		rc.mu.Lock()
		defer rc.mu.Unlock()
		got = append(got[:0], rc.got...)
		return len(got) >= n
	})
	return got
}

const webhookGlobal = `{
	admin ADMIN
	auto_https off
	persist_config off
	grace_period 2s
	log {
		output file DIR/caddy.log
		format json
	}
	feature_flags {
		source file FEATURES {
			poll 100ms
		}
		state local STATE
		WEBHOOKS
	}
}
`

func TestWebhooks(t *testing.T) {
	plain, chat, pager, sick := newReceiver(t, 204), newReceiver(t, 200), newReceiver(t, 202), newReceiver(t, 0)
	c := start(t, webhookGlobal+site[strings.Index(site, "http"):strings.Index(site, "	log site")]+twoWays+"}\n", `{"new_ui": {"active": true, "error_threshold": 2}}`, map[string]string{
		"NEW": host(upstream(t, "new", func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(500)
			return true
		})), "OLD": host(upstream(t, "old", nil)),
		"WEBHOOKS": `webhook ` + plain.URL + `/hidden-path?hidden-query {
			secret hidden-secret-of-some-length
			name plain
		}
		webhook slack ` + chat.URL + `/hidden-path {
			events tripped reset
		}
		webhook pagerduty ` + pager.URL + ` {
			routing_key hidden0123456789abcdef0123456789
		}
		webhook ` + sick.URL + `/hidden-path {
			name sick
			timeout 1s
		}`,
	})
	begun := time.Now()
	for range 3 {
		c.get("/", "X-User-ID", "alice")
	}
	if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old") || time.Since(begun) > 2*time.Second {
		t.Errorf("after %v: %d %s: a webhook that hangs holds up a trip", time.Since(begun), r.status, r.body)
	}
	c.api("POST", "flags/new_ui/reset", `{"reason": "mended", "by": "ann"}`, 200)

	got := plain.events(t, 2)
	var trip struct {
		SpecVersion, ID, Source, Type, Subject, Time string
		Data                                         struct {
			Flag, By, Reason string
			Details          struct {
				Test     string
				Evidence struct{ Summary string }
				Durable  bool
			}
		}
	}
	if err := json.Unmarshal([]byte(got[0].body), &trip); err != nil {
		t.Fatal(err)
	}
	if trip.SpecVersion != "1.0" || trip.Type != "feature_flags.tripped" || trip.Subject != "new_ui" || trip.ID == "" || trip.Data.Details.Test != "errors" || !strings.Contains(trip.Data.Reason, "3 canary requests failed") || !trip.Data.Details.Durable {
		t.Errorf("%s", got[0].body)
	}
	for _, g := range got {
		if err := webhook.Verify("hidden-secret-of-some-length", g.header, []byte(g.body), time.Now(), time.Minute); err != nil {
			t.Errorf("the signature: %v", err)
		}
		if err := webhook.Verify("another-secret", g.header, []byte(g.body), time.Now(), time.Minute); err == nil {
			t.Error("verified with another secret")
		}
		if g.header.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" && g.header.Get("Content-Type") != "application/cloudevents+json" {
			t.Errorf("%v", g.header)
		}
	}
	if !strings.Contains(got[1].body, "mended") || !strings.Contains(got[1].body, `"ann"`) {
		t.Errorf("%s", got[1].body)
	}
	if said := chat.events(t, 2); !strings.Contains(said[0].body, `"text"`) || !strings.Contains(said[0].body, "new_ui") {
		t.Errorf("Slack is told %s", said[0].body)
	}
	var alert, resolve struct {
		RoutingKey  string `json:"routing_key"`
		EventAction string `json:"event_action"`
		DedupKey    string `json:"dedup_key"`
		Payload     struct{ Summary, Severity, Source string }
	}
	paged := pager.events(t, 2)
	if err := json.Unmarshal([]byte(paged[0].body), &alert); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(paged[1].body), &resolve); err != nil {
		t.Fatal(err)
	}
	if alert.EventAction != "trigger" || resolve.EventAction != "resolve" || alert.DedupKey == "" || alert.DedupKey != resolve.DedupKey || alert.Payload.Severity == "" || alert.RoutingKey == "" {
		t.Errorf("PagerDuty is told %s\n%s", paged[0].body, paged[1].body)
	}
	eventually(t, 10*time.Second, "the one that hangs is not told of", func() bool {
		return strings.Contains(c.file("caddy.log"), "a webhook has not been delivered")
	})
	series, text := scrape(t, c.admin+"/metrics")
	if series[`caddy_feature_flags_webhook_requests_total{result="delivered",target="plain"}`] < 2 || series[`caddy_feature_flags_webhook_requests_total{result="failed",target="sick"}`] < 1 {
		t.Error("deliveries are not counted")
	}
	for where, text := range map[string]string{"log": c.file("caddy.log"), "metrics": text, "API": c.call("GET", "/feature_flags/flags", "").body, "queue": c.file("state/webhooks.db")} {
		if strings.Contains(text, "hidden") {
			t.Errorf("a secret of a webhook is in the %s", where)
		}
	}
}

// What happened while a webhook was away is told when it is back, also over kill -9
// and a config that has none of it for a while.
func TestWebhookIsAway(t *testing.T) {
	rc := newReceiver(t, 503)
	words := map[string]string{"WEBHOOKS": "webhook " + rc.URL + " {\n			name one\n		}", "DIR": t.TempDir()}
	p := newProcess(t, webhookGlobal+"SITE {\n	feature_flags\n	respond ok\n}\n", `{"new_ui": {"active": true}}`, words)
	p.run()
	disable := func(reason string) {
		t.Helper()
		if _, out, status := p.command("", "disable", "new_ui", "--reason", reason, "--address", p.admin); status != 0 {
			t.Fatal(out)
		}
	}
	disable("first")
	eventually(t, 5*time.Second, "nobody has tried to deliver it", func() bool {
		r, err := try("http://" + p.admin + "/metrics")
		return err == nil && strings.Contains(r.body, `caddy_feature_flags_webhook_requests_total{result="failed",target="one"}`)
	})
	eventually(t, 5*time.Second, "the event is not on disk", func() bool {
		text, err := os.ReadFile(filepath.Join(p.dir, "state", "webhooks.db"))
		return err == nil && strings.Contains(string(text), "first")
	})
	p.kill()
	rc.answers(200)
	p.run()
	first := rc.events(t, 1)
	if !strings.Contains(first[0].body, "first") {
		t.Errorf("%s", first[0].body)
	}
	disable("second")
	if got := rc.events(t, 2); !strings.Contains(got[1].body, "second") || got[0].header.Get("webhook-id") == got[1].header.Get("webhook-id") {
		t.Errorf("%+v", got)
	}
}
