package caddymodule

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// opinions is what people think of a flag, as it was summed up last.
type opinions struct {
	monitors.Opinions
	at      time.Time // when they were last summed up; zero: not yet
	changed bool      // somebody has said something since
	making  sync.Mutex
}

const (
	// holdFeedback is why a rollout does not climb.
	holdFeedback = "feedback"
	// opinionsAge is how often they are summed up at most.
	opinionsAge = time.Second
)

// opinionsChanged notes that somebody has said something about a flag.
func (e *engine) opinionsChanged(flag string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.thought == nil {
		return // all of them are looked up anew
	}
	if e.thought[flag] == nil {
		e.thought[flag] = new(opinions)
	}
	e.thought[flag].changed = true
}

// lookUpOpinions finds the flags that somebody has said something about. The caller
// must hold mu.
func (e *engine) lookUpOpinions(now time.Time) {
	e.thought = map[string]*opinions{}
	for _, f := range e.store.Feedback(now, state.FeedbackFilter{}) {
		if e.thought[f.Flag] == nil {
			e.thought[f.Flag] = &opinions{changed: true}
		}
	}
}

// opinionsOf sums up what people have said about a flag since it was last reset.
func (e *engine) opinionsOf(now time.Time, flag string) monitors.Opinions {
	e.mu.Lock()
	if e.thought == nil {
		e.lookUpOpinions(now)
	}
	o := e.thought[flag]
	switch {
	case o == nil:
		e.mu.Unlock()
		return monitors.Opine(nil)
	case !o.changed, now.Sub(o.at) < opinionsAge:
		defer e.mu.Unlock()
		return o.Opinions
	}
	first := o.at.IsZero()
	o.at, o.changed = now, false // what is said from here on changes it
	if !first {
		defer e.mu.Unlock()
		go e.sumUp(flag, o) // till then what was known holds
		return o.Opinions
	}
	e.mu.Unlock()
	return e.sumUp(flag, o)
}

// sumUp sums up what people have said.
func (e *engine) sumUp(flag string, o *opinions) monitors.Opinions {
	defer survive("summing up feedback")
	o.making.Lock()
	defer o.making.Unlock()
	sum := monitors.Opine(e.votes(time.Now(), flag))
	e.mu.Lock()
	defer e.mu.Unlock()
	o.Opinions = sum
	return sum
}

// votes are what people have said about a flag since it was last reset, the oldest
// first.
func (e *engine) votes(now time.Time, flag string) []monitors.Vote {
	said := e.store.Feedback(now, state.FeedbackFilter{Flag: flag})
	if len(said) == 0 {
		return nil
	}
	since := e.lastReset(flag)
	votes := make([]monitors.Vote, 0, len(said))
	for _, f := range slices.Backward(said) {
		if f.At.After(since) && monitors.IsRating(f.Rating) {
			votes = append(votes, monitors.Vote{Variant: f.Variant, Canary: f.Canary, Compared: f.Split, Rating: f.Rating})
		}
	}
	return votes
}

// lastReset is when a flag was last armed anew; zero: not that anybody knows.
func (e *engine) lastReset(flag string) time.Time {
	for _, a := range e.store.Audit(state.AuditFilter{Flag: flag}) {
		if a.Action == state.ActionReset {
			return a.At
		}
	}
	return time.Time{}
}

// feedbackHold tells whether people like a canary clearly less than the control.
func (e *engine) feedbackHold(now time.Time, def *evaluator.Flag) bool {
	return def.Guard.Enabled && def.Guard.Feedback && e.opinionsOf(now, def.Name).Worse
}

// feedbackView is what the API tells about a flag's feedback.
type feedbackView struct {
	Flag string `json:"flag"`
	monitors.Opinions
	Holds    bool           `json:"holds"` // the rollout, by guard.feedback
	Feedback []feedbackItem `json:"feedback"`
}

type feedbackItem struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Variant string    `json:"variant"`
	Rating  string    `json:"rating"`
	Comment string    `json:"comment,omitempty"`
}

// feedbackOf gives the newest words, limit of them.
func (a *App) feedbackOf(now time.Time, def *evaluator.Flag, limit int) feedbackView {
	v := feedbackView{Flag: def.Name, Opinions: a.engine.opinionsOf(now, def.Name), Holds: a.engine.feedbackHold(now, def), Feedback: []feedbackItem{}}
	for _, f := range a.engine.store.Feedback(now, state.FeedbackFilter{Flag: def.Name, Limit: limit}) {
		v.Feedback = append(v.Feedback, feedbackItem{f.ID, f.At, f.Variant, f.Rating, f.Comment})
	}
	return v
}

func (a *App) serveFeedback(w http.ResponseWriter, r *http.Request) error {
	rs, i, err := a.named(r)
	if err != nil {
		return err
	}
	limit, err := readLimit(r)
	if err != nil {
		return err
	}
	return reply(w, a.feedbackOf(time.Now(), rs.Definition(i), limit))
}

// readLimit reads the query's limit, 100 where it has none.
func readLimit(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return 100, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 10_000 {
		return 0, problem(http.StatusBadRequest, "limit: want a number from 1 to 10000, got %q", text)
	}
	return n, nil
}
