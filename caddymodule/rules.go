package caddymodule

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// rules is a ruleset bound to the monitors that count for it: what one request
// loads once. Immutable.
type rules struct {
	*evaluator.Ruleset
	monitors []boundMonitor
	names    []string                        // of the flags, by number
	cells    []atomic.Pointer[monitors.Cell] // by flag, variant and reason; made when first needed
	kept     map[string]state.FlagState      // the trips and overrides that are in force, without the progress

	keysOnce sync.Once
	keys     map[string]int // see dictionaryKeys
}

type boundMonitor struct {
	flag    *monitors.Flag
	watched bool   // requests are followed one by one: thresholds are in force, or answers are matched
	guarded bool   // canary and control are compared
	first   uint32 // its first cell in the rules
	matches []evaluator.ResponseMatch
	tripped time.Time    // when it last was; zero: not that anybody knows
	epoch   atomic.Int64 // of the guard
}

// bind makes the rules of a program and what is kept of its flags.
func bind(program *evaluator.Program, e *engine) *rules {
	states, kept := e.states(program)
	r := program.With(states)
	b := &rules{Ruleset: r, monitors: make([]boundMonitor, r.Len()), names: make([]string, r.Len()), kept: kept}
	cells := 0
	for i := range b.monitors {
		def := r.Definition(i)
		b.names[i] = def.Name
		m := &b.monitors[i]
		m.flag, m.first = e.monitor(def.Name), uint32(cells)
		m.tripped = e.lastTrip(def.Name)
		m.guarded = def.Guard.Enabled && r.Splits(i)
		if def.Guard.Enabled && def.Guard.Errors != nil {
			m.matches = def.Guard.Errors.Match
		}
		m.watched = thresholdsOf(def).Any() || len(m.matches) > 0
		cells += len(r.Variants(i)) * len(evaluator.Reasons)
	}
	b.cells = make([]atomic.Pointer[monitors.Cell], cells)
	return b
}

// code numbers a decision's variant and reason within its flag.
func (b *rules) code(d *evaluator.Decision) uint16 {
	return uint16(d.Index*len(evaluator.Reasons) + d.Reason.Index())
}

// cell returns the counters of the decisions on flag i that have the code.
func (b *rules) cell(i int, code uint16) *monitors.Cell {
	place := &b.cells[b.monitors[i].first+uint32(code)]
	if c := place.Load(); c != nil {
		return c
	}
	variant, reason := b.Variants(i)[int(code)/len(evaluator.Reasons)], evaluator.Reasons[int(code)%len(evaluator.Reasons)]
	c := b.monitors[i].flag.Cell(variant, string(reason), variant != evaluator.Off)
	place.Store(c)
	return c
}

// headersOf returns the names of the request headers that flag i's decision can
// depend on in a site, in canonical form, sorted.
func (b *rules) headersOf(site *Handler, i int) []string {
	var names []string
	if site != nil && site.Trust != nil {
		names = append(names, decisionsHeader)
	}
	if site != nil && (site.Override != nil || site.app != nil && site.app.pins.touch(b.Definition(i))) {
		names = append(names, "Cookie")
	}
	for _, attribute := range b.Reads(i) {
		names = append(names, site.headersOf(attribute)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if slices.Contains(names, "*") {
		names = []string{"*"}
	}
	return names
}

// headersOf returns the request headers that a site reads an attribute from;
// "*" where it is read from what no header tells, such as an address.
func (h *Handler) headersOf(attribute string) (names []string) {
	if h == nil { // no feature_flags block: only the sticky id is known
		if attribute == evaluator.UserID || attribute == "*" {
			return []string{"Cookie"}
		}
		return nil
	}
	for _, s := range h.Context {
		if attribute != "*" && s.Attribute != attribute {
			continue
		}
		switch s.From {
		case "header":
			names = append(names, http.CanonicalHeaderKey(s.Key))
		case "cookie", "sticky":
			names = append(names, "Cookie")
		case "user_agent":
			names = append(names, "User-Agent")
		case "jwt":
			if h.JWT != nil {
				for _, from := range h.JWT.From {
					names = append(names, from.header()...)
				}
			}
		case "value":
			names = append(names, headersOfPlaceholders(s.Key)...)
		}
	}
	return names
}

// headersOfPlaceholders tells what a text with placeholders varies by.
func headersOfPlaceholders(text string) (names []string) {
	for {
		_, after, found := strings.Cut(text, "{")
		if !found {
			return names
		}
		key, rest, closed := strings.Cut(after, "}")
		if !closed {
			return names
		}
		text = rest
		key, _, _ = strings.Cut(key, ":")
		if name, ok := cutAny(key, "http.request.header.", "header."); ok {
			names = append(names, http.CanonicalHeaderKey(name))
		} else if _, ok := cutAny(key, "http.request.cookie.", "cookie."); ok {
			names = append(names, "Cookie")
		} else if _, ok := cutAny(key, "http.auth."); ok {
			names = append(names, "Authorization", "Cookie")
		} else if _, ok := cutAny(key, "http.request.uri", "http.request.orig_uri", "http.request.host", "http.request.method",
			"http.request.scheme", "http.request.port", "http.regexp.", "path", "uri", "query", "host", "method", "env.", "system.", "file."); !ok {
			names = append(names, "*")
		}
	}
}

func cutAny(s string, prefixes ...string) (rest string, found bool) {
	for _, p := range prefixes {
		if rest, found = strings.CutPrefix(s, p); found {
			return rest, true
		}
	}
	return "", false
}
