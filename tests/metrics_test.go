package tests

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scrape returns our series with their values, and the whole text.
func scrape(t *testing.T, url string) (series map[string]float64, text string) {
	t.Helper()
	text = ask(t, http.MethodGet, url, "").body
	series = map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "caddy_feature_flags_") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, twice := series[line[:at]]; twice {
			t.Errorf("a series is told twice: %s", line[:at])
		}
		series[line[:at]] = value
	}
	return series, text
}

// lasting counts series but those of guards, which end with a trip.
func lasting(series map[string]float64) (n int) {
	for s := range series {
		if !strings.Contains(s, "_guard_") {
			n++
		}
	}
	return n
}

func TestMetrics(t *testing.T) {
	c := start(t, canarySite+"http://:0 {\n	bind 127.0.0.2\n	metrics\n}\n",
		`{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 50, "error_threshold": 2}, "half.way": {"active": true, "percentage_rollout": 12.5}}`, words(t))
	for _, path := range []string{"/", "/secret-path", "/?fail", "/?fail"} {
		c.get(path, "X-User-ID", "alice", "X-Secret", "secret-header")
	}
	for i := range 40 {
		c.get("/secret-path", "X-User-ID", "secret-user-"+itoa(i), "X-Region", "secret-region")
	}
	eventually(t, 3*time.Second, "the guard has no figures", func() bool {
		series, _ := scrape(t, c.admin+"/metrics")
		return series[`caddy_feature_flags_guard_judged{cohort="canary",flag="half.way"}`] > 0
	})
	series, text := scrape(t, c.admin+"/metrics")
	for want, value := range map[string]float64{
		`caddy_feature_flags_requests_total{code="2xx",cohort="canary",flag="new_ui",outcome="ok",reason="TARGETING_MATCH",variant="on"}`:    2,
		`caddy_feature_flags_requests_total{code="5xx",cohort="canary",flag="new_ui",outcome="error",reason="TARGETING_MATCH",variant="on"}`: 2,
		`caddy_feature_flags_tripped{flag="new_ui"}`:       0,
		`caddy_feature_flags_percentage{flag="new_ui"}`:    50,
		`caddy_feature_flags_percentage{flag="half.way"}`:  12.5,
		`caddy_feature_flags_degraded{what="state"}`:       0,
		`caddy_feature_flags_degraded{what="definitions"}`: 0,
		`caddy_feature_flags_panics_total`:                 -1,
	} {
		if got, ok := series[want]; !ok || value >= 0 && got != value {
			t.Errorf("%s is %v (there: %t), want %v", want, got, ok, value)
		}
	}
	sum, buckets := 0.0, 0.0
	for s, value := range series {
		if strings.HasPrefix(s, "caddy_feature_flags_requests_total{") && strings.Contains(s, `flag="new_ui"`) {
			sum += value
		}
		if strings.HasPrefix(s, "caddy_feature_flags_first_byte_seconds_bucket{") && strings.Contains(s, `flag="new_ui"`) && strings.Contains(s, `le="+Inf"`) {
			buckets += value
		}
	}
	if sum != 44 || buckets != 44 {
		t.Errorf("%v requests, %v in the histogram, want 44", sum, buckets)
	}
	if strings.Contains(text, "secret") || strings.Contains(text, "alice") {
		t.Error("the metrics hold what a client sent")
	}

	// Names, help, and the labels that docs/api.md tells.
	labels := map[string][]string{
		"requests_total": {"code", "cohort", "flag", "outcome", "reason", "variant"}, "first_byte_seconds": {"cohort", "flag", "variant"},
		"tripped": {"flag"}, "percentage": {"flag"}, "degraded": {"what"}, "events_total": {"event"}, "tokens_refused_total": {"cause"}, "ofrep_requests_total": {"call", "code"}, "ofrep_streams": nil, "webhook_requests_total": {"result", "target"}, "feedback_total": {"flag", "rating", "variant"}, "panics_total": nil,
		"guard_log_e": {"flag", "test"}, "guard_trip_at": {"flag"}, "guard_held": {"flag"}, "guard_users": {"cohort", "flag"}, "guard_judged": {"cohort", "flag"},
		"fallbacks_total": {"flag", "result"}, "decisions_refused_total": {"cause"}, "mirror_total": {"flag", "result"}, "mirror_first_byte_seconds": {"flag", "of", "quantile"},
	}
	name := regexp.MustCompile(`^caddy_feature_flags_([a-z_]+?)(_bucket|_sum|_count)?(\{|$)`)
	label := regexp.MustCompile(`([a-z_]+)="`)
	for s := range series {
		m := name.FindStringSubmatch(s)
		var got []string
		for _, l := range label.FindAllStringSubmatch(s, -1) {
			if l[1] != "le" {
				got = append(got, l[1])
			}
		}
		if want, known := labels[m[1]]; !known || !slices.Equal(got, want) {
			t.Errorf("%s has the labels %v, want %v", s, got, want)
		}
		if !strings.Contains(text, "# HELP caddy_feature_flags_"+m[1]+" ") {
			t.Errorf("%s has no help", m[1])
		}
	}
	lint := func(text string) {
		t.Helper()
		var ours strings.Builder
		for line := range strings.Lines(text) {
			if strings.Contains(line, "caddy_feature_flags_") {
				ours.WriteString(line)
			}
		}
		problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
		if err != nil {
			t.Error(err)
		}
		for _, p := range problems {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
	lint(text)

	// The same in a site, and over reloads nothing goes down.
	reload := func() {
		t.Helper()
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		if again, _ := scrape(t, c.url(1)+"/metrics"); lasting(again) < lasting(series) {
			t.Errorf("the handler metrics shows %d series, the admin endpoint %d", lasting(again), lasting(series))
		}
		after, text := scrape(t, c.admin+"/metrics")
		for s, before := range series {
			if strings.Contains(s, "_total") || strings.Contains(s, "first_byte") {
				if now, ok := after[s]; !ok || now < before {
					t.Errorf("%s was %v and is %v after a reload", s, before, now)
				}
			}
		}
		lint(text)
		series = after
	}
	reload()
	c.get("/?fail", "X-User-ID", "alice")
	c.get("/", "X-User-ID", "alice")
	reload()
	eventually(t, 2*time.Second, "the trip is not among the events", func() bool {
		series, _ = scrape(t, c.admin+"/metrics")
		return series[`caddy_feature_flags_events_total{event="feature_flags.tripped"}`] >= 1
	})
	for want, value := range map[string]float64{
		`caddy_feature_flags_tripped{flag="new_ui"}`:    1,
		`caddy_feature_flags_percentage{flag="new_ui"}`: 0,
		`caddy_feature_flags_requests_total{code="5xx",cohort="canary",flag="new_ui",outcome="error",reason="TARGETING_MATCH",variant="on"}`: 3,
		`caddy_feature_flags_requests_total{code="2xx",cohort="control",flag="new_ui",outcome="ok",reason="DISABLED",variant="off"}`:         1,
	} {
		if got := series[want]; got != value {
			t.Errorf("%s is %v, want %v", want, got, value)
		}
	}
	// A definition that turns bad, and a config that does.
	c.write("features.json", "bad")
	eventually(t, 2*time.Second, "bad definitions are not seen", func() bool {
		series, _ = scrape(t, c.admin+"/metrics")
		return series[`caddy_feature_flags_degraded{what="definitions"}`] == 1
	})
	if err := c.load(); err == nil {
		t.Error("a config with bad definitions was loaded")
	}
	if again, text := scrape(t, c.admin+"/metrics"); lasting(again) < lasting(series) || again[`caddy_feature_flags_tripped{flag="new_ui"}`] != 1 {
		t.Errorf("after a config that failed the metrics are\n%s", text)
	}
	c.write("features.json", `{"new_ui": {"active": true, "users": ["alice"]}}`)
	eventually(t, 2*time.Second, "mended definitions are not seen", func() bool {
		series, _ = scrape(t, c.admin+"/metrics")
		return series[`caddy_feature_flags_degraded{what="definitions"}`] == 0
	})
}
