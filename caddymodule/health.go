package caddymodule

import (
	"fmt"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// healthView is the state store's health as the API and events tell it.
type healthView struct {
	Path     string     `json:"path,omitempty"` // empty: in memory only, on purpose
	Degraded bool       `json:"degraded"`
	Since    *time.Time `json:"since,omitempty"`
	Error    string     `json:"error,omitempty"`
	Waiting  int        `json:"waiting"`             // records not yet on disk
	SetAside []string   `json:"set_aside,omitempty"` // damaged files, by their new names
	Salvaged int        `json:"salvaged,omitempty"`
	Lost     int        `json:"lost,omitempty"`
}

func viewHealth(h state.Health) healthView {
	v := healthView{Path: h.Path, Degraded: h.Degraded, Waiting: h.Waiting, SetAside: h.SetAside, Salvaged: h.Salvaged, Lost: h.Lost}
	if h.Degraded {
		v.Since = &h.Since
	}
	if h.Err != nil {
		v.Error = h.Err.Error()
	}
	return v
}

// healthNews says what has become of the store; ok false: nothing to tell.
func healthNews(was, h state.Health, now time.Time) (n news, ok bool) {
	n = news{Event: eventDegraded, At: now, Data: viewHealth(h)}
	switch {
	case h.Degraded && !was.Degraded:
		n.Reason = fmt.Sprintf("state cannot be written, and goes on in memory: %v", h.Err)
	case len(h.SetAside) > len(was.SetAside):
		n.Reason = fmt.Sprintf("state was damaged and set aside as %s: %d records taken over, %d lines could not be read",
			strings.Join(h.SetAside[len(was.SetAside):], ", "), h.Salvaged, h.Lost)
	case was.Degraded && !h.Degraded:
		n.Event, n.Reason = eventRecovered, "state is on disk again"
	default:
		return news{}, false
	}
	return n, true
}
