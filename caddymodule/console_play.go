package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// playPage is the playground: a typed context, and how it is decided.
type playPage struct {
	Context, Environment, At, Flag string
	Names                          []string
	Problem                        string
	Decisions                      []playDecision
}

type playDecision struct {
	Flag string
	explained
}

const exampleContext = `{
  "user_id": "alice",
  "region": "RO"
}`

func (c *Console) servePlayground(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	rs := c.app.rules.Load()
	page := playPage{Context: cmp.Or(q.Get("context"), exampleContext), Environment: cmp.Or(q.Get("environment"), c.app.environment), At: q.Get("at"), Flag: q.Get("flag"), Names: rs.names}
	if q.Has("context") {
		page.decide(rs, c.app.environment)
	}
	return c.show(w, r, http.StatusOK, "playground", "Playground", page)
}

// decide answers what was typed.
func (p *playPage) decide(rs *rules, environment string) {
	ask := question{Environment: &p.Environment}
	if err := readObject(strings.NewReader(p.Context), &ask.Context); err != nil && !errors.Is(err, io.EOF) {
		p.Problem = "context: " + err.Error()
		return
	}
	if p.At != "" {
		at, err := parseMoment(p.At)
		if err != nil {
			p.Problem = err.Error()
			return
		}
		ask.At = &at
	}
	if p.Flag != "" {
		ask.Flags = []string{p.Flag}
	}
	for name, d := range answer(rs.Ruleset, ask, environment, true) {
		p.Decisions = append(p.Decisions, playDecision{name, d})
	}
	slices.SortFunc(p.Decisions, func(a, b playDecision) int { return strings.Compare(a.Flag, b.Flag) })
}

// previewPage shows who a changed definition would change.
type previewPage struct {
	Source   string // that the definitions would stand in the place of
	Sources  []string
	Text     string
	Problem  string
	Findings []evaluator.Finding
	Ready    bool
	Contexts int // that were looked at
	Changes  []previewChange
	Same     int // flags that nobody would see change
}

// previewChange is what would change for people of one flag.
type previewChange struct {
	Flag     string
	From, To string // variants
	People   int
	Samples  []string // by pseudonym
}

const mostPreview = 1 << 20

func (c *Console) servePreview(w http.ResponseWriter, r *http.Request) error {
	var page previewPage
	for _, s := range c.app.sources {
		page.Sources = append(page.Sources, s.Name())
	}
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, 2*mostPreview)
		if err := r.ParseForm(); err != nil {
			return problem(http.StatusRequestEntityTooLarge, "The definitions are too large to preview: at most 1 MiB.")
		}
		if err := c.checkForm(r, time.Now()); err != nil {
			return err
		}
		page.Source, page.Text = r.PostFormValue("source"), strings.ReplaceAll(r.PostFormValue("text"), "\r\n", "\n")
		c.app.preview(&page, time.Now())
	} else {
		page.Source = r.URL.Query().Get("source")
		page.Text = c.app.sourceText(page.Source)
	}
	return c.show(w, r, http.StatusOK, "preview", "Preview", page)
}

// sourceText is what a source says, the first one where none is named.
func (a *App) sourceText(name string) string {
	a.reload.Lock()
	defer a.reload.Unlock()
	for _, s := range a.sources {
		if (name == "" || s.Name() == name) && len(s.inForce.text.Body) <= mostPreview {
			return string(s.inForce.text.Body)
		}
	}
	return ""
}

// preview compiles the definitions in the place of a source's, and decides the last
// contexts by what is and by what would be.
func (a *App) preview(p *previewPage, now time.Time) {
	doc, _ := evaluator.Decode(cmp.Or(p.Source, "preview"), []byte(p.Text)) // it keeps its mistakes
	a.reload.Lock()
	var docs []*evaluator.Document
	placed := false
	for _, s := range a.sources {
		if !placed && (p.Source == "" || s.Name() == p.Source) {
			docs, placed = append(docs, doc), true
		} else if s.inForce.doc != nil {
			docs = append(docs, s.inForce.doc)
		}
	}
	a.reload.Unlock()
	if !placed {
		docs = append(docs, doc)
	}
	program, err := evaluator.Compile(docs...)
	if err != nil {
		p.Problem = err.Error()
		return
	}
	before := a.rules.Load().Ruleset
	after := program.With(a.engine.states(program))
	p.Findings, p.Ready = evaluator.Lint(after, now, nil), true
	contexts := a.contexts.all()
	p.Contexts = len(contexts)
	changes := map[[3]string]*previewChange{}
	changed := map[string]bool{}
	names := map[string]bool{}
	for _, r := range []*evaluator.Ruleset{before, after} {
		for i := range r.Len() {
			names[r.Definition(i).Name] = true
		}
	}
	people := map[[4]string]bool{}
	for _, seen := range contexts {
		for name := range names {
			from, to := before.Evaluate(name, &seen.ctx, now), after.Evaluate(name, &seen.ctx, now)
			if from.Variant == to.Variant {
				continue
			}
			changed[name] = true
			key := [3]string{name, from.Variant, to.Variant}
			ch := changes[key]
			if ch == nil {
				ch = &previewChange{Flag: name, From: from.Variant, To: to.Variant}
				changes[key] = ch
			}
			who := a.shownAs(seen.ctx.TargetingKey())
			if person := [4]string{name, from.Variant, to.Variant, who}; !people[person] {
				people[person] = true
				ch.People++
				if len(ch.Samples) < 8 {
					ch.Samples = append(ch.Samples, who)
				}
			}
		}
	}
	for _, ch := range changes {
		p.Changes = append(p.Changes, *ch)
	}
	p.Same = len(names) - len(changed)
	slices.SortFunc(p.Changes, func(a, b previewChange) int {
		return cmp.Or(strings.Compare(a.Flag, b.Flag), cmp.Compare(b.People, a.People), strings.Compare(fmt.Sprint(a.From, a.To), fmt.Sprint(b.From, b.To)))
	})
}
