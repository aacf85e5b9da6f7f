package caddymodule

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Metrics are registered anew with every config's registry, and the figures
// outlive configs: the request path adds to the engine's own counters, which
// are read here when somebody scrapes.
var (
	tokensRefused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "tokens_refused_total",
		Help: "Tokens that were not accepted, by cause.",
	}, []string{"cause"})
	eventsTold = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "events_total",
		Help: "Trips, resets, overrides, reloads and their like.",
	}, []string{"event"})
	fallbacks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "fallbacks_total",
		Help: "Failed canary requests of routes with a fallback, by what became of them: answered by off, or why not.",
	}, []string{"flag", "result"})
	decisionsRefused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "decisions_refused_total",
		Help: "Signed decisions of an earlier hop that were not believed, by cause.",
	}, []string{"cause"})
	ofrepRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "ofrep_requests_total",
		Help: "Requests of OpenFeature clients, by what they asked for and the answer's status.",
	}, []string{"call", "code"})
	ofrepStreams = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "ofrep_streams",
		Help: "Event streams of OpenFeature clients that are open.",
	})
	feedbackTaken = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "feedback_total",
		Help: "What people have said about flags, by the variant that they were served; also words that take the place of their earlier ones.",
	}, []string{"flag", "variant", "rating"})
	webhooksSent = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "webhook_requests_total",
		Help: "Events for webhooks, by target and what became of them: delivered, failed (to be tried again), given_up, dropped for want of room.",
	}, []string{"target", "result"})
	panics = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "feature_flags", Name: "panics_total",
		Help: "Panics in the plugin's own code; the requests went on.",
	})
	running engineCollector
)

func registerMetrics(registry *prometheus.Registry) error {
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{tokensRefused, eventsTold, fallbacks, decisionsRefused, ofrepRequests, ofrepStreams, feedbackTaken, webhooksSent, panics, &running} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

var (
	requestsDesc = prometheus.NewDesc("caddy_feature_flags_requests_total",
		"Requests for which a flag's decision mattered, by what they came to.", []string{"flag", "variant", "cohort", "reason", "outcome", "code"}, nil)
	firstByteDesc = prometheus.NewDesc("caddy_feature_flags_first_byte_seconds",
		"Time from arrival to the first byte of the answer, of exposed requests.", []string{"flag", "variant", "cohort"}, nil)
	trippedDesc = prometheus.NewDesc("caddy_feature_flags_tripped",
		"1 while the flag is tripped.", []string{"flag"}, nil)
	enabledDesc = prometheus.NewDesc("caddy_feature_flags_percentage",
		"Percentage in force; 0 while the flag is off for everyone.", []string{"flag"}, nil)
	evidenceDesc = prometheus.NewDesc("caddy_feature_flags_guard_log_e",
		"Natural logarithm of the evidence against the canary, by test; total is what trips.", []string{"flag", "test"}, nil)
	limitDesc = prometheus.NewDesc("caddy_feature_flags_guard_trip_at",
		"Where the total trips: ln(1/false_alarm), more after earlier detectors.", []string{"flag"}, nil)
	heldDesc = prometheus.NewDesc("caddy_feature_flags_guard_held",
		"1 while a rollout would not climb.", []string{"flag"}, nil)
	usersDesc = prometheus.NewDesc("caddy_feature_flags_guard_users",
		"Different users whom the split decided for, about, since users were last forgotten.", []string{"flag", "cohort"}, nil)
	judgedDesc = prometheus.NewDesc("caddy_feature_flags_guard_judged",
		"Requests that the tests have seen since the guard began; of one user's errors they see the first.", []string{"flag", "cohort"}, nil)
	mirrorDesc = prometheus.NewDesc("caddy_feature_flags_mirror_total",
		"Copies of requests that were sent to the canary, by how their answers compare with the real ones.", []string{"flag", "result"}, nil)
	mirrorTimesDesc = prometheus.NewDesc("caddy_feature_flags_mirror_first_byte_seconds",
		"Time to the first byte of mirrored requests and of their copies, since the process began.", []string{"flag", "of", "quantile"}, nil)
	degradedDesc = prometheus.NewDesc("caddy_feature_flags_degraded",
		"1 while state cannot be written or definitions cannot be taken.", []string{"what"}, nil)
)

// engineCollector reads the engines that run; usually one.
type engineCollector struct {
	mu      sync.Mutex
	engines []*engine
}

func (c *engineCollector) add(e *engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engines = append(c.engines, e)
}

func (c *engineCollector) remove(e *engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engines = slices.DeleteFunc(c.engines, func(o *engine) bool { return o == e })
}

// Describe is part of prometheus.Collector.
func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, firstByteDesc, trippedDesc, enabledDesc, degradedDesc, evidenceDesc, limitDesc, heldDesc, usersDesc, judgedDesc, mirrorDesc, mirrorTimesDesc} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	defer survive("collecting metrics")
	c.mu.Lock()
	engines := slices.Clone(c.engines)
	c.mu.Unlock()
	// Engines of one process seldom share flags; where they do, the newest
	// speaks, since one series may be told once only.
	told := map[string]bool{}
	degraded := false
	slices.Reverse(engines)
	slices.SortStableFunc(engines, func(a, b *engine) int { // one of a config that does not run yet speaks last
		return cmp.Compare(zeroOne(a.running() == nil), zeroOne(b.running() == nil))
	})
	for _, e := range engines {
		for _, m := range e.allMonitors() {
			if !told[m.Name()] {
				told[m.Name()] = true
				collectFlag(ch, m)
				if f := e.mirrorFigures(m.Name()); f != nil {
					collectMirror(ch, m.Name(), f)
				}
			}
		}
		if a, ok := e.newest().(*App); ok && !told[""] {
			told[""] = true
			a.collect(ch)
		}
		degraded = degraded || e.store.Health().Degraded
	}
	ch <- prometheus.MustNewConstMetric(degradedDesc, prometheus.GaugeValue, zeroOne(degraded), "state")
}

func (a *App) collect(ch chan<- prometheus.Metric) {
	r := a.rules.Load()
	for i, name := range r.names {
		ch <- prometheus.MustNewConstMetric(trippedDesc, prometheus.GaugeValue, zeroOne(r.State(i).Tripped != ""), name)
		ch <- prometheus.MustNewConstMetric(enabledDesc, prometheus.GaugeValue, a.percentage(r, i), name)
	}
	ch <- prometheus.MustNewConstMetric(degradedDesc, prometheus.GaugeValue, zeroOne(a.failing.Load() != nil), "definitions")
}

func collectGuard(ch chan<- prometheus.Metric, flag string, s monitors.GuardStatus) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, append([]string{flag}, labels...)...)
	}
	for test, logE := range s.LogE {
		if logE != nil {
			gauge(evidenceDesc, *logE, test)
		}
	}
	gauge(limitDesc, s.TripAt)
	gauge(heldDesc, zeroOne(s.Verdict == monitors.Hold))
	for cohort, c := range map[string]monitors.GuardCohort{"canary": s.Canary, "control": s.Control} {
		gauge(usersDesc, float64(c.Users), cohort)
		gauge(judgedDesc, float64(c.Judged), cohort)
	}
}

func collectMirror(ch chan<- prometheus.Metric, flag string, f *monitors.MirrorFigures) {
	for _, result := range monitors.MirrorResults() {
		ch <- prometheus.MustNewConstMetric(mirrorDesc, prometheus.CounterValue, float64(f.Results[result.String()]), flag, result.String())
	}
	for of, times := range map[string]monitors.MirrorTimes{"request": f.Request, "copy": f.Copy} {
		for quantile, seconds := range map[string]float64{"0.5": times.P50, "0.9": times.P90, "0.99": times.P99} {
			ch <- prometheus.MustNewConstMetric(mirrorTimesDesc, prometheus.GaugeValue, seconds, flag, of, quantile)
		}
	}
}

func collectFlag(ch chan<- prometheus.Metric, m *monitors.Flag) {
	if g := m.Guard(); g != nil {
		collectGuard(ch, m.Name(), g.Status(time.Now()))
	}
	variants := map[[2]string]*monitors.Counts{} // variant and cohort
	for _, cell := range m.Cells() {
		cohort := "control"
		if cell.Canary {
			cohort = "canary"
		}
		s := cell.Snapshot()
		for _, class := range monitors.Classes() {
			if n := s.Outcomes[class]; n > 0 {
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), m.Name(), cell.Variant, cohort, cell.Reason, class.String(), class.Code())
			}
		}
		key := [2]string{cell.Variant, cohort}
		if variants[key] == nil {
			variants[key] = &monitors.Counts{}
		}
		variants[key].Add(s)
	}
	for key, s := range variants {
		done := s.Total()
		if done == 0 {
			continue
		}
		buckets := make(map[float64]uint64, len(monitors.Bounds))
		var below uint64
		for i, bound := range monitors.Bounds {
			below += s.Latency[i]
			buckets[bound] = below
		}
		ch <- prometheus.MustNewConstHistogram(firstByteDesc, done, s.Waited.Seconds(), buckets, m.Name(), key[0], key[1])
	}
}

func zeroOne(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
