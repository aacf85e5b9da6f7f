package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// rolloutStep is the step that a flag's rollout is at; 0: it has none.
func (a *App) rolloutStep(flag string) int {
	rs := a.rules.Load()
	if i := rs.Index(flag); i >= 0 {
		if s := a.engine.rolloutStatus(time.Now(), rs.Definition(i), ""); s != nil {
			return s.Step
		}
	}
	return 0
}

// fingerprint tells apart what a reset ends: trips, and a person's word.
func fingerprint(f state.FlagState) string {
	trip := "none"
	if f.Tripped() {
		trip = f.LastTrip().ID
	}
	return fmt.Sprintf("%d.%s.%d", len(f.Trips), trip, f.Override.Revision)
}

// sinceThen says what has come of a flag since a page was made that was of another
// fingerprint.
func sinceThen(seen string, now state.FlagState) string {
	switch {
	case now.Tripped() && !strings.Contains(seen, now.LastTrip().ID):
		return "The flag has tripped since this page was made, at " + now.LastTrip().At.UTC().Format(shownTime) + "."
	case now.Override.Kind != state.Cleared && !strings.HasSuffix(seen, "."+strconv.FormatUint(now.Override.Revision, 10)):
		return fmt.Sprintf("The flag was %s by %s since this page was made, at %s.", now.Override.Kind, cmp.Or(now.Override.By, "somebody"), now.Override.At.UTC().Format(shownTime))
	}
	return "The flag was reset since this page was made."
}

// serveAction does what a form of a flag's page orders, and goes back there.
func (c *Console) serveAction(w http.ResponseWriter, r *http.Request) error {
	if err := c.readForm(w, r, 64<<10, problem(http.StatusBadRequest, "The form cannot be read.")); err != nil {
		return err
	}
	if _, _, err := c.app.named(r); err != nil {
		return err
	}
	flag := r.PathValue("name")
	o := order{Reason: strings.TrimSpace(r.PostFormValue("reason")), By: operator(r)}
	if err := o.check(); err != nil {
		return err
	}
	var err error
	switch action := r.PathValue("action"); action {
	case "enable":
		err = c.app.engine.override(flag, state.Enabled, o.By, o.Reason)
	case "disable":
		err = c.app.engine.override(flag, state.Disabled, o.By, o.Reason)
	case "reset":
		if seen, now := r.PostFormValue("seen"), c.app.engine.store.Flag(flag); seen != "" && seen != fingerprint(now) {
			return problem(http.StatusConflict, "%s Nothing was changed.", sinceThen(seen, now))
		}
		err = c.app.engine.reset(flag, o.By, o.Reason)
	case "pause", "resume", "promote", "abort":
		if step := r.PostFormValue("step"); action == "promote" && step != "" {
			if now := c.app.rolloutStep(flag); step != strconv.Itoa(now) {
				return problem(http.StatusConflict, "The rollout has moved meanwhile: it is at step %d, and was at %s when this page was made. Nothing was changed.", now, clipped(step))
			}
		}
		err = c.app.steer(flag, steer{Action: action}, o)
	case "percentage":
		share, failed := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(r.PostFormValue("percentage")), "%")), 64)
		if failed != nil {
			return problem(http.StatusBadRequest, "percentage: want a number from 0 to 100, got %q", clipped(r.PostFormValue("percentage")))
		}
		err = c.app.steer(flag, steer{Percentage: &share}, o)
	default:
		return problem(http.StatusNotFound, "There is no such order.")
	}
	var refused caddy.APIError
	if errors.As(err, &refused) {
		return refused
	}
	// It is in force; where the disk has not taken it, the page says so.
	http.Redirect(w, r, cmp.Or(baseOf(r), c.base(r))+"flags/"+url.PathEscape(flag), http.StatusSeeOther)
	return nil
}
