package contest

import "time"

// total trips when so many of the canary's requests have failed since the start,
// however many there were: breakers whose counters are never cleared, such as
// gobreaker with its default interval of 0 and a limit on TotalFailures, or a
// rollout script that reads an error counter. No product has a default for the
// number.
type total struct{ limit, failed int }

func (r *total) Ended(a *Answer) {
	if a.Canary && a.Failed {
		r.failed++
	}
}

func (r *total) Tick(time.Duration) bool { return r.failed >= r.limit }

// frequency trips when so many of the canary's requests fail within a time: the
// passive health checks of NGINX (max_fails 1 in fail_timeout 10 s) and of Caddy
// (max_fails 1 in fail_duration, which is off unless set), the breaker of Azure
// API Management (a count in an interval), and alarms on the sum of 5xx in a
// minute, on which AWS CodeDeploy and AppConfig roll back. Ten in a minute is more
// patient than those defaults.
type frequency struct {
	window
	limit float64
}

func newFrequency(limit float64, in time.Duration) *frequency {
	return &frequency{newWindow(in), limit}
}

func (r *frequency) Ended(a *Answer) {
	if a.Canary && a.Failed {
		r.add(a.Ended, true)
	}
}

func (r *frequency) Tick(now time.Duration) bool {
	r.slide(now)
	return r.sum.bad >= r.limit
}
