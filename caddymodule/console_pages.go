package caddymodule

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// flagRow is a flag in the list.
type flagRow struct {
	flagView
	Reach    reach
	Meta     evaluator.Metadata
	Since    time.Time // see sinceOf
	Spark    []sparkBar
	Requests uint64 // in the last hour
	Findings int
}

// sparkBar is a bar of a row's little chart.
type sparkBar struct{ X, Y, H float64 }

const (
	sparkBars   = 30
	sparkHeight = 20
)

type flagsPage struct {
	Query, Status string
	Statuses      []string
	Rows          []flagRow
	Total         int
	Started       time.Time // of the process
}

// flagStatuses are the words of flags' states.
var flagStatuses = []string{"on", "targeted", "split", "off", "inactive", "disabled", "tripped", "half_open"}

func (c *Console) serveFlags(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	rs := c.app.rules.Load()
	q := r.URL.Query()
	page := flagsPage{Query: strings.TrimSpace(q.Get("q")), Status: q.Get("status"), Statuses: flagStatuses, Total: rs.Len(), Started: processStart}
	sparks := c.app.sparks(now)
	findings := map[string]int{}
	for _, f := range c.app.lint(now) {
		if f.Severity == evaluator.Warning {
			findings[f.Flag]++
		}
	}
	for i := range rs.Len() {
		row := flagRow{flagView: c.app.view(rs, i, now), Reach: c.app.reach(rs, i, now), Meta: rs.Definition(i).Metadata, Findings: findings[rs.names[i]]}
		if page.Status != "" && row.Reach.Status != page.Status || !finds(page.Query, row) {
			continue
		}
		row.Since = sinceOf(rs.Definition(i), row.FirstSeen)
		row.Spark, row.Requests = sparkOf(sparks[row.Name])
		page.Rows = append(page.Rows, row)
	}
	// What needs a person comes first.
	slices.SortStableFunc(page.Rows, func(a, b flagRow) int { return cmp.Compare(urgency(a), urgency(b)) })
	return c.show(w, r, http.StatusOK, "flags", "Flags", page)
}

// sparks are the requests of all flags in the last hour.
func (a *App) sparks(now time.Time) map[string][]uint64 {
	out := map[string][]uint64{}
	if kept := a.engine.recorder.history(); kept != nil {
		if found, _ := kept.Sparklines(now.Add(-time.Hour), now, sparkBars); found != nil { // degraded tells why there is not more
			out = found
		}
	}
	for _, row := range a.engine.recorder.rows(a.engine, a, now, false) {
		if out[row.Flag] == nil {
			out[row.Flag] = make([]uint64, sparkBars)
		}
		out[row.Flag][sparkBars-1] += row.Canary.Requests + row.Control.Requests
	}
	return out
}

func urgency(r flagRow) int {
	switch r.Reach.Status {
	case "tripped":
		return 0
	case "half_open":
		return 1
	case "split":
		return 2
	}
	return 3
}

// finds tells whether a row has all words of the query in its name, description, owner
// or type.
func finds(query string, r flagRow) bool {
	text := strings.ToLower(strings.Join([]string{r.Name, r.Meta.Description, r.Meta.Owner, r.Meta.Type}, " "))
	for word := range strings.FieldsSeq(strings.ToLower(query)) {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// sinceOf is when a flag came to be: as its metadata tells, or when it was first in
// force here; zero where nobody knows.
func sinceOf(def *evaluator.Flag, seen *time.Time) time.Time {
	var raw struct{ Metadata struct{ Created string } }
	if json.Unmarshal(def.Raw, &raw) == nil && raw.Metadata.Created != "" {
		if at, err := parseMoment(raw.Metadata.Created); err == nil {
			return time.Time(at)
		}
	}
	if seen == nil {
		return time.Time{}
	}
	return *seen
}

func sparkOf(counts []uint64) (bars []sparkBar, sum uint64) {
	most := uint64(1)
	for _, n := range counts {
		most, sum = max(most, n), sum+n
	}
	for i, n := range counts {
		if n > 0 {
			h := max(1, math.Round(float64(n)/float64(most)*sparkHeight))
			bars = append(bars, sparkBar{float64(i) * 4, sparkHeight - h, h})
		}
	}
	return bars, sum
}

// tripView is a trip with its evidence.
type tripView struct {
	state.Trip
	Evidence monitors.Evidence
}

type flagPage struct {
	flagView
	Reach    reach
	Meta     evaluator.Metadata
	Started  time.Time // of the process
	Pretty   string    // the definition
	Trips    []tripView
	Override string // kind; "" none
	Audit    []state.AuditEntry
	Findings []evaluator.Finding
	Feedback feedbackView
	Steps    []stepView
	Orders   []orderView // that apply
	Grave    []orderView // that take the flag away from people
	Seen     string      // see fingerprint
}

// stepView is a step of a rollout.
type stepView struct {
	Share float64
	State string // done, now or next
}

func (c *Console) serveFlag(w http.ResponseWriter, r *http.Request) error {
	rs, i, err := c.app.named(r)
	if err != nil {
		return err
	}
	now := time.Now()
	def := rs.Definition(i)
	page := flagPage{flagView: c.app.view(rs, i, now), Reach: c.app.reach(rs, i, now), Meta: def.Metadata, Started: processStart, Audit: c.app.engine.store.Audit(state.AuditFilter{Flag: def.Name, Limit: 20}), Feedback: c.app.feedbackOf(now, def, 10)}
	var pretty bytes.Buffer
	if json.Indent(&pretty, def.Raw, "", "  ") == nil {
		page.Pretty = pretty.String()
	}
	for _, t := range page.State.Trips {
		v := tripView{Trip: t}
		_ = json.Unmarshal(t.Evidence, &v.Evidence) // a trip of another version shows without
		page.Trips = append(page.Trips, v)
	}
	if o := page.State.Override; o != nil {
		page.Override = string(o.Kind)
	}
	page.Seen = fingerprint(rs.kept[def.Name])
	page.Orders, page.Grave = ordersOf(&page.flagView, def.Active)
	for _, f := range c.app.lint(now) {
		if f.Flag == def.Name {
			page.Findings = append(page.Findings, f)
		}
	}
	if s := page.Rollout; s != nil {
		for k, share := range s.Steps {
			state := "next"
			if k+1 < s.Step {
				state = "done"
			} else if k+1 == s.Step {
				state = "now"
			}
			page.Steps = append(page.Steps, stepView{share, state})
		}
	}
	return c.show(w, r, http.StatusOK, "flag", def.Name, page)
}

type auditPage struct {
	Flag    string
	Entries []state.AuditEntry
}

func (c *Console) serveAudit(w http.ResponseWriter, r *http.Request) error {
	flag := r.URL.Query().Get("flag")
	return c.show(w, r, http.StatusOK, "audit", "Audit", auditPage{flag, c.app.engine.store.Audit(state.AuditFilter{Flag: flag, Limit: 200})})
}

func (c *Console) serveLint(w http.ResponseWriter, r *http.Request) error {
	return c.show(w, r, http.StatusOK, "lint", "Findings", c.app.lint(time.Now()))
}

// consolePage is an entry of the menu.
type consolePage struct{ Name, Path, Title string }

var consolePages = []consolePage{
	{"flags", "", "Flags"}, {"audit", "audit", "Audit"}, {"lint", "lint", "Findings"}, {"playground", "playground", "Playground"}, {"preview", "preview", "Preview"},
}

// pageFuncs are what templates call.
var pageFuncs = template.FuncMap{
	"pages":   func() []consolePage { return consolePages },
	"percent": percent,
	"seconds": seconds,
	"when":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"at":      func(t time.Time) string { return t.UTC().Format(shownTime) },
	"age":     age,
	"ago":     ago,
	"rate":    func(f float64) string { return fmt.Sprintf("%.2f %%", 100*f) },
	"word":    func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	"chance":  chance,
	"is":      func(p *float64) float64 { return *p },
	"ratings": func() []string { return monitors.Ratings[:] },
	"phase":   func(s *rollout.Status) string { return describeRollout(s) },
	"short": func(f float64) string {
		return fmt.Sprintf("%.3g", f)
	},
}

// shownTime is how the console shows a moment where no script does.
const shownTime = "2006-01-02 15:04:05 UTC"

// unixSeconds is a moment as the charts have it, to the millisecond.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// age tells people how long ago something was, in short.
func age(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "–"
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	}
}

// ago is age within a sentence.
func ago(now, t time.Time) string {
	if t.IsZero() || now.Sub(t) < time.Minute {
		return age(now, t)
	}
	return age(now, t) + " ago"
}

// chance tells evidence as people say it.
func chance(logE float64) string {
	switch e := math.Exp(logE); {
	case e < 1.5:
		return "nothing against it"
	case e < 1e9:
		return "1 in " + thousands(int64(math.Round(e))) + " by chance"
	default:
		return "less than 1 in 1,000,000,000 by chance"
	}
}

// thousands writes a number with a comma before each three figures.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
