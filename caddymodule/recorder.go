package caddymodule

import (
	"errors"
	"math"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state/history"
)

// recorder writes the history: each minute what the flags' canary and control came
// to in it.
type recorder struct {
	kept *history.History
	line queue // the disk may be slow

	mu     sync.Mutex
	minute time.Time             // the one in progress; zero: none yet
	begun  map[string]beginning  // by flag: how it stood then
	most   map[string]evidenceOf // by flag: the most evidence in it
	looked time.Time             // when evidence was last looked at
}

// beginning is how a flag stood when the minute began.
type beginning struct {
	canary, control monitors.Counts
	standing
}

// evidenceOf is what a guard has against a canary.
type evidenceOf struct{ logE, tripAt float64 }

const historyName = "history.db"

func newRecorder() *recorder {
	return &recorder{begun: map[string]beginning{}, most: map[string]evidenceOf{}}
}

// begin takes the directory into use; "" is memory only.
func (r *recorder) begin(dir string) {
	if dir != "" {
		dir = filepath.Join(dir, historyName)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = history.Open(dir, history.Options{})
}

// history returns what is kept, nil before begin.
func (r *recorder) history() *history.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept
}

// isDue tells, once a second, that evidence is to be looked at.
func (r *recorder) isDue(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := now.Sub(r.looked); age >= 0 && age < time.Second {
		return false
	}
	r.looked = now
	return true
}

// seeEvidence notes the evidence against a flag's canary, for the history and the
// console.
func (e *engine) seeEvidence(flag string, g *monitors.Guard) {
	logE, tripAt := g.LogE()
	if math.IsInf(logE, 0) || math.IsNaN(logE) {
		return
	}
	e.recorder.sees(flag, evidenceOf{logE, tripAt})
	e.rings.sees(flag, evidenceOf{logE, tripAt})
}

// sees notes evidence against a flag's canary.
func (r *recorder) sees(flag string, e evidenceOf) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if most, known := r.most[flag]; !known || e.logE > most.logE {
		r.most[flag] = e
	}
}

// turn ends the minute when it is over.
func (r *recorder) turn(e *engine, l listener, now time.Time) {
	minute := now.Truncate(time.Minute)
	r.mu.Lock()
	over := r.minute
	if over.IsZero() {
		r.minute = minute
		for _, m := range e.allMonitors() {
			r.begun[m.Name()] = beginning{standing: standingOf(l, m.Name(), now)} // counted since the process began
		}
	}
	r.mu.Unlock()
	if over.IsZero() {
		e.noteSeen(l, now)
	}
	if !over.IsZero() && !over.Equal(minute) {
		r.write(e, l, now, over, minute)
	}
}

// write keeps the minute that is over, and begins the next one.
func (r *recorder) write(e *engine, l listener, now, over, next time.Time) {
	rows := r.rows(e, l, now, true)
	e.noteSeen(l, now)
	r.mu.Lock()
	r.minute = next
	clear(r.most)
	kept := r.kept
	r.mu.Unlock()
	if kept != nil && len(rows) > 0 {
		r.line.add(func() { _ = kept.Add(over, rows) }) // Health tells why not
	}
}

// noteSeen keeps when each flag was first in force.
func (e *engine) noteSeen(l listener, now time.Time) {
	for _, m := range e.allMonitors() {
		if standingOf(l, m.Name(), now).status == "" || e.firstSeen(m.Name()) != nil {
			continue
		}
		e.keep(now, m.Name(), func(p *progress) { p.Seen = &now })
	}
}

// firstSeen is when a flag was first in force; nil: nobody knows.
func (e *engine) firstSeen(flag string) *time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.keptOf(flag).Seen
}

// rows are what the flags came to in the minute in progress, of those that there
// is something to say about; turn begins the next one.
func (r *recorder) rows(e *engine, l listener, now time.Time, turn bool) []history.Row {
	var rows []history.Row
	for _, m := range e.allMonitors() {
		name := m.Name()
		canary, control, s := m.Cohort(true), m.Cohort(false), standingOf(l, name, now)
		r.mu.Lock()
		before, evidence := r.begun[name], (*float64)(nil)
		if l == nil { // nobody knows any more: as it was
			s = before.standing
		}
		most, known := r.most[name]
		if turn {
			r.begun[name] = beginning{canary, control, s}
		}
		r.mu.Unlock()
		if known {
			evidence = &most.logE
		}
		row := history.Row{
			Flag: name, Canary: countsSince(before.canary, canary), Control: countsSince(before.control, control),
			LogE: evidence, TripAt: most.tripAt, Percentage: s.percentage, Status: s.status,
		}
		if row.Canary.Requests+row.Control.Requests > 0 || known || s.status != before.status {
			rows = append(rows, row)
		}
	}
	return rows
}

// countsSince is what has come since before.
func countsSince(before, now monitors.Counts) (c history.Counts) {
	was, is := before.Figures(), now.Figures()
	c.Requests, c.Errors, c.Gone = is.Requests-was.Requests, is.Errors-was.Errors, is.ClientGone-was.ClientGone
	for i := range c.Latency {
		c.Latency[i] = now.Latency[i] - before.Latency[i]
	}
	return c
}

// running is the minute in progress of one flag; false where there is nothing to
// say about it.
func (r *recorder) running(e *engine, l listener, flag string, now time.Time) (row history.Row, minute time.Time, ok bool) {
	of := func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.minute
	}
	for minute = of(); ; minute = of() {
		rows := r.rows(e, l, now, false)
		if !minute.Equal(of()) {
			continue // it has just turned
		}
		for _, row := range rows {
			if row.Flag == flag {
				return row, minute, !minute.IsZero()
			}
		}
		return history.Row{}, time.Time{}, false
	}
}

// end keeps what there is of the minute in progress, when the process ends.
func (r *recorder) end(e *engine, now time.Time) {
	r.mu.Lock()
	over, kept := r.minute, r.kept
	r.mu.Unlock()
	if kept == nil {
		return
	}
	if !over.IsZero() {
		r.write(e, nil, now, over, over)
	}
	r.line.drain(2 * time.Second)
	_ = kept.Close()
}

// standing is how a flag stands, for people.
type standing struct {
	status     string
	percentage float64
}

// standingOf asks the app that speaks; nobody knows where none does.
func standingOf(l listener, flag string, now time.Time) standing {
	if l == nil {
		return standing{}
	}
	return l.standing(flag, now)
}

// standing is part of listener.
func (a *App) standing(flag string, now time.Time) standing {
	r := a.rules.Load()
	i := r.Index(flag)
	if i < 0 {
		return standing{}
	}
	return standing{a.status(r, i, now), a.percentage(r, i)}
}

// seriesOf is the history of a flag, with the minute in progress.
func (a *App) seriesOf(flag string, from, to, now time.Time) (history.Series, error) {
	kept := a.engine.recorder.history()
	if kept == nil {
		return history.Series{}, errors.New("the history is not open yet")
	}
	var running []history.Running
	if row, minute, ok := a.engine.recorder.running(a.engine, a, flag, now); ok {
		running = append(running, history.Running{At: minute, Row: row})
	}
	return kept.Query(flag, from, to, running...)
}

// historyView is what the API tells about a flag's past.
type historyView struct {
	Flag    string          `json:"flag"`
	Step    float64         `json:"step"` // seconds: 60, 300 or 3600
	Points  []history.Point `json:"points"`
	Warning string          `json:"warning,omitempty"` // why there may be more
}

func (a *App) serveHistory(w http.ResponseWriter, r *http.Request) error {
	rs, i, err := a.named(r)
	if err != nil {
		return err
	}
	now := time.Now()
	from, to, err := readSpan(r, now)
	if err != nil {
		return err
	}
	name := rs.Definition(i).Name
	s, err := a.seriesOf(name, from, to, now)
	v := historyView{Flag: name, Step: s.Step.Seconds(), Points: append([]history.Point{}, s.Points...)}
	if err != nil {
		v.Warning = err.Error()
	}
	return reply(w, v)
}

// readSpan reads the query's `last`, or `from` and `to`: the last hour without
// them.
func readSpan(r *http.Request, now time.Time) (from, to time.Time, err error) {
	q := r.URL.Query()
	from, to = now.Add(-time.Hour), now
	if text := q.Get("last"); text != "" {
		last, err := caddy.ParseDuration(text)
		if err != nil || last <= 0 || last > 366*24*time.Hour {
			return from, to, problem(http.StatusBadRequest, "last: want a duration as 2h or 14d, got %q", text)
		}
		from = now.Add(-last)
	}
	for name, into := range map[string]*time.Time{"from": &from, "to": &to} {
		if text := q.Get(name); text != "" {
			at, err := parseMoment(text)
			if err != nil {
				return from, to, problem(http.StatusBadRequest, "%s: want a time as 2026-01-31T12:00:00Z, got %q", name, text)
			}
			*into = time.Time(at)
		}
	}
	if !from.Before(to) {
		return from, to, problem(http.StatusBadRequest, "from: %s is not before %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	return from, to, nil
}
