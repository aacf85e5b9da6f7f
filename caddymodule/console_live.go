package caddymodule

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
	"github.com/seed-6adbc061/caddy-feature-flags/state/history"
)

// sample is what has come of a flag since the last one.
type sample struct {
	At      float64     `json:"t"`    // seconds of Unix time
	Step    float64     `json:"step"` // seconds that it is of
	Canary  sampleSpan  `json:"canary"`
	Control sampleSpan  `json:"control"`
	LogE    *float64    `json:"log_e"`
	TripAt  float64     `json:"trip_at"`
	Now     sampleState `json:"now"`
}

type sampleSpan struct {
	Rate   float64  `json:"rate"`   // requests a second
	Errors *float64 `json:"errors"` // per cent; null: there were no requests
	P50    *float64 `json:"p50"`    // seconds
	P99    *float64 `json:"p99"`
}

type sampleState struct {
	Status     string  `json:"status"`
	Percentage float64 `json:"percentage"`
	Verdict    string  `json:"verdict"`
}

// series is what was, for the charts.
type series struct {
	Step    float64  `json:"step"` // seconds
	To      float64  `json:"to"`   // the server's time, in seconds
	Samples []sample `json:"samples"`
	Marks   []mark   `json:"marks"`
}

// mark is a trip or a reset.
type mark struct {
	At   float64 `json:"t"`
	What string  `json:"what"`
}

// serveSeries gives the charts what was.
func (c *Console) serveSeries(w http.ResponseWriter, r *http.Request) error {
	rs, i, err := c.app.named(r)
	if err != nil {
		return err
	}
	now := time.Now()
	out := series{Step: liveStep.Seconds(), To: unixSeconds(now), Samples: []sample{}, Marks: []mark{}}
	from, to := now.Add(-liveKept*liveStep), now
	if r.URL.Query().Get("last") == "live" {
		out.Samples = append(out.Samples, c.app.engine.rings.since(rs.names[i], 0)...)
	} else {
		if from, to, err = readSpan(r, now); err != nil {
			return err
		}
		s, _ := c.app.seriesOf(rs.names[i], from, to, now) // what there is of it; degraded tells why there is not more
		out.Step = s.Step.Seconds()
		for _, p := range s.Points {
			step := min(s.Step, max(now.Sub(p.At), time.Second)).Seconds()
			out.Samples = append(out.Samples, sample{
				At: float64(p.At.Unix()), Step: s.Step.Seconds(), Canary: spanOf(p.Canary, step), Control: spanOf(p.Control, step),
				LogE: p.LogE, TripAt: p.TripAt, Now: sampleState{p.Status, p.Percentage, ""},
			})
		}
	}
	for _, e := range c.app.engine.store.Audit(state.AuditFilter{Flag: rs.names[i]}) {
		if (e.Action == state.ActionTripped || e.Action == state.ActionReset) && e.At.After(from) && !e.At.After(to) {
			out.Marks = append(out.Marks, mark{unixSeconds(e.At), e.Action})
		}
	}
	return reply(w, out)
}

func spanOf(f history.Figures, step float64) sampleSpan {
	s := sampleSpan{Rate: float64(f.Requests) / step}
	if f.Requests > 0 {
		errors := 100 * f.ErrorRate
		s.Errors, s.P50, s.P99 = &errors, &f.P50, &f.P99
	}
	return s
}

// spanSince is what has come since before. Of clients that all have left nobody knows
// how they fared.
func spanSince(before, now monitors.Counts, step float64) sampleSpan {
	c := countsSince(before, now)
	if c.Requests == c.Gone {
		return sampleSpan{Rate: float64(c.Requests) / step}
	}
	return spanOf(c.Figures(), step)
}

// serveLive tells a flag's page how the flag does, and when something has changed.
func (c *Console) serveLive(w http.ResponseWriter, r *http.Request) error {
	rs, i, err := c.app.named(r)
	if err != nil {
		return err
	}
	flag, last := rs.names[i], float64(time.Now().Unix())
	var ticked time.Time
	return c.stream(w, r, liveStep/2, func(out *eventWriter) bool {
		for _, s := range c.app.engine.rings.since(flag, last) {
			last = s.At
			if text, err := json.Marshal(s); err == nil && !out.send("event: sample\ndata: %s\n\n", text) {
				return false
			}
		}
		if now := time.Now(); now.Sub(ticked) > pageStep-liveStep/4 {
			ticked = now
			return out.tick(now)
		}
		return true
	})
}

// pageStep is how often a page is told that its server is there, and looks for what
// has changed by itself. console.js counts on it.
const pageStep = 5 * time.Second

// tick sends the server's time, in seconds.
func (e *eventWriter) tick(now time.Time) bool {
	return e.send("event: tick\ndata: {\"t\": %.3f}\n\n", unixSeconds(now))
}

// serveEvents tells other pages when something has changed.
func (c *Console) serveEvents(w http.ResponseWriter, r *http.Request) error {
	return c.stream(w, r, pageStep, func(out *eventWriter) bool { return out.tick(time.Now()) })
}

// stream sends what happens, and what tick sends again and again, until the client
// leaves or the config ends.
func (c *Console) stream(w http.ResponseWriter, r *http.Request, every time.Duration, tick func(*eventWriter) bool) error {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return nil
	}
	_, _, ch, leave := c.app.engine.stream.watch("")
	defer leave()
	out := newEventWriter(w)
	if !out.send("retry: 1000\n\n") || !tick(out) {
		return nil
	}
	ctx, done := whileAll(r.Context(), c.app.running, c.ending)
	defer done()
	out.follow(ctx, ch, func(n numbered) bool {
		text, err := json.Marshal(map[string]string{"event": n.Event, "flag": n.Flag, "reason": n.Reason})
		return err != nil || out.send("event: changed\ndata: %s\n\n", text)
	}, every, func() bool { return tick(out) })
	return nil
}
