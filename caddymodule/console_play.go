package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
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

// mostTyped bounds what is typed into the playground, in bytes.
const mostTyped = 256 << 10

// servePlayground answers with the form, and what was posted by it: identities do not
// belong into addresses, which logs and browsers keep.
func (c *Console) servePlayground(w http.ResponseWriter, r *http.Request) error {
	rs := c.app.rules.Load()
	page := playPage{Context: exampleContext, Environment: c.app.environment, Flag: r.URL.Query().Get("flag"), Names: rs.names}
	if r.Method == http.MethodPost {
		if err := c.readForm(w, r, mostTyped, problem(http.StatusRequestEntityTooLarge, "The context is too large: at most 256 KiB.")); err != nil {
			return err
		}
		page.Context, page.Environment, page.At, page.Flag = r.PostFormValue("context"), r.PostFormValue("environment"), r.PostFormValue("at"), r.PostFormValue("flag")
		page.decide(rs, c.app.environment)
	}
	return c.show(w, r, http.StatusOK, "playground", "Playground", page)
}

// parseTyped reads a moment as the console shows it, or as definitions have it.
func parseTyped(text string) (moment, error) {
	text = strings.TrimSpace(text)
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, strings.TrimSpace(strings.TrimSuffix(text, "UTC"))); err == nil {
			return moment(t), nil
		}
	}
	return parseMoment(text)
}

// decide answers what was typed.
func (p *playPage) decide(rs *rules, environment string) {
	ask := question{Environment: &p.Environment}
	if err := readObject(strings.NewReader(p.Context), &ask.Context); err != nil && !errors.Is(err, io.EOF) {
		p.Problem = "context: " + err.Error()
		return
	}
	if p.At != "" {
		at, err := parseTyped(p.At)
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
	Mistakes string // of the definitions
	Cut      string // why not all contexts were looked at
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

	seen map[string]struct{}
}

const (
	mostPreview     = 1 << 20 // bytes
	previewPatience = 5 * time.Second
	mostSamples     = 8 // people told of a change
)

// add counts a person, who may come again.
func (ch *previewChange) add(who string) {
	if ch.seen == nil {
		ch.seen = map[string]struct{}{}
	}
	if _, again := ch.seen[who]; again {
		return
	}
	ch.seen[who] = struct{}{}
	if ch.People++; len(ch.Samples) < mostSamples {
		ch.Samples = append(ch.Samples, who)
	}
}

// namesOf are the flags of either ruleset, sorted.
func namesOf(rulesets ...*evaluator.Ruleset) (names []string) {
	for _, r := range rulesets {
		for i := range r.Len() {
			names = append(names, r.Definition(i).Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// variantOf is what a flag comes to; off for one that is not defined.
func variantOf(r *evaluator.Ruleset, e *evaluator.Evaluation, name string) string {
	if i := r.Index(name); i >= 0 {
		return e.Decide(i).Variant
	}
	return evaluator.Off
}

func (c *Console) servePreview(w http.ResponseWriter, r *http.Request) error {
	var page previewPage
	for _, s := range c.app.sources {
		page.Sources = append(page.Sources, s.Name())
	}
	if r.Method == http.MethodPost {
		if err := c.readForm(w, r, 2*mostPreview, problem(http.StatusRequestEntityTooLarge, "The definitions are too large to preview: at most 1 MiB.")); err != nil {
			return err
		}
		page.Source, page.Text = r.PostFormValue("source"), strings.ReplaceAll(r.PostFormValue("text"), "\r\n", "\n")
		if !c.previewing.TryLock() {
			return problem(http.StatusTooManyRequests, "Another preview is being made: try again in a moment.")
		}
		defer c.previewing.Unlock()
		ctx, cancel := context.WithTimeout(r.Context(), previewPatience)
		defer cancel()
		c.app.preview(ctx, &page, time.Now())
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
func (a *App) preview(ctx context.Context, p *previewPage, now time.Time) {
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
		p.Mistakes = err.Error()
		return
	}
	before := a.rules.Load().Ruleset
	states, _ := a.engine.states(program)
	after := program.With(states)
	p.Findings, p.Ready = evaluator.Lint(after, now, nil), true
	names := namesOf(before, after)
	changes, changed := map[[3]string]*previewChange{}, map[string]bool{}
	for n, seen := range a.contexts.all() {
		who := a.shownAs(seen.ctx.TargetingKey())
		var is, would evaluator.Evaluation
		is.Reset(before, &seen.ctx, now)
		would.Reset(after, &seen.ctx, now)
		for _, name := range names {
			if ctx.Err() != nil {
				p.Cut = "This takes too long: what is shown is of the first " + strconv.Itoa(n) + " contexts."
				break
			}
			from, to := variantOf(before, &is, name), variantOf(after, &would, name)
			if from == to {
				continue
			}
			changed[name] = true
			key := [3]string{name, from, to}
			if changes[key] == nil {
				changes[key] = &previewChange{Flag: name, From: from, To: to}
			}
			changes[key].add(who)
		}
		if p.Cut != "" {
			break
		}
		p.Contexts = n + 1
	}
	for _, ch := range changes {
		p.Changes = append(p.Changes, *ch)
	}
	p.Same = len(names) - len(changed)
	slices.SortFunc(p.Changes, func(a, b previewChange) int {
		return cmp.Or(strings.Compare(a.Flag, b.Flag), cmp.Compare(b.People, a.People), strings.Compare(fmt.Sprint(a.From, a.To), fmt.Sprint(b.From, b.To)))
	})
}
