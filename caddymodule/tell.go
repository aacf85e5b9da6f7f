package caddymodule

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// tell decides the flags that s tells and sets the request's headers.
func (h *Handler) tell(rq *request, s *siteRules, r *http.Request) {
	if h.Headers.Mode == "off" || len(s.told) == 0 || s.rules != rq.rules {
		return
	}
	// All at once only where nobody has asked before: what was decided without
	// the context must not be kept for others, nor a second handler's for the first.
	var set spelledSet
	if s == rq.site && len(rq.exposures) == 0 && rq.bulk == nil {
		set = s.decideAll(rq)
	}
	decided := set.decisionSet != nil
	if decided {
		rq.bulk = set.decisionSet
		if s.watched > 0 || rq.span != nil {
			rq.exposures = slices.Grow(rq.exposures, s.watched)
			rq.followWatched(s)
		}
		rq.enter(s)
	} else {
		rq.exposures = slices.Grow(rq.exposures, len(s.told))
	}
	rq.tellers = append(rq.tellers, teller{h, s})
	if h.Propagate != nil {
		if decided {
			h.propagate(rq, s, r.Header, set.chain)
		} else {
			h.propagate(rq, s, r.Header, s.chain(rq))
		}
	}
	if h.Vary {
		for _, i := range s.told {
			rq.varyBy(i)
		}
	}
	if h.Headers.Mode == "list" {
		list := ""
		if decided {
			list = set.list
		} else {
			list = s.dictionary(rq.decide)
		}
		r.Header[h.Headers.Name] = append(rq.room(s, 1), list)
		return
	}
	values := rq.room(s, len(s.told))
	for k, i := range s.told {
		variant := evaluator.Off
		switch {
		case i < 0:
		case decided:
			variant = s.rules.Variants(i)[int(set.codes[k])/len(evaluator.Reasons)]
		default:
			variant = rq.decide(i).Variant
		}
		if variant != evaluator.Off || h.Headers.Mode == "each" {
			values = append(values, variant)
			n := len(values)
			r.Header[s.names[k]] = values[n-1 : n : n]
		}
	}
}

// teller is a handler that has told the application a request's decisions.
type teller struct {
	handler *Handler
	site    *siteRules
}

// tells tells whether a header is one of those that a flag is told in.
func (rq *request) tells(header string) bool {
	for _, t := range rq.tellers {
		if slices.Contains(t.site.names, header) {
			return true
		}
	}
	return false
}

// tellAgain tells what some flags are now, in place of what was told of them before.
func (t teller) tellAgain(rq *request, flags []int, header http.Header) {
	name, mode := t.handler.Headers.Name, t.handler.Headers.Mode
	if mode == "list" {
		header[name] = []string{t.site.dictionary(rq.eval.Decide)}
	}
	for _, i := range flags {
		k := slices.Index(t.site.told, i)
		if k < 0 || mode == "list" {
			continue
		}
		if variant := rq.eval.Decide(i).Variant; variant != evaluator.Off || mode == "each" {
			header[t.site.names[k]] = []string{variant}
		} else {
			delete(header, t.site.names[k])
		}
	}
	switch {
	case t.handler.Propagate != nil:
		t.handler.propagate(rq, t.site, header, t.site.chain(rq))
	case t.handler.Trust != nil:
		delete(header, decisionsHeader) // it says something else
	}
}

// room gives memory for the values of n headers of the site, the request's own
// where that is enough and no second handler's.
func (rq *request) room(s *siteRules, n int) []string {
	if n > len(rq.values) || s != rq.site {
		return make([]string, 0, n)
	}
	return rq.values[:0:n]
}

// followWatched begins to follow the flags of the bulk that have thresholds, and
// notes all of it in the request's span.
func (rq *request) followWatched(s *siteRules) {
	for k, i := range s.told {
		if i < 0 {
			continue
		}
		if s.alone[k] {
			d := rq.eval.Decide(i)
			rq.expose(i, d)
			rq.trace(d)
		} else if rq.span != nil {
			rq.trace(rq.eval.Decide(i))
		}
	}
}

// enter has the guards of the bulk follow the request.
func (rq *request) enter(s *siteRules) {
	if s.log == nil || rq.exempt {
		return
	}
	if user := cmp.Or(rq.ctx.TargetingKey(), rq.trustedUser); user != "" { // without, no split has decided
		rq.ticket = s.log.enter(rq.app.engine, rq.bulk, rq.hashOf(user))
	}
}

var splitIndex = evaluator.ReasonSplit.Index()

// appendDictionary appends one member of an RFC 9651 dictionary. Keys there are
// lower case; a flag's name keeps its letters apart but for their case. On is a
// bare key (true), off is ?0, a variant is a token, or a string where it cannot
// be one.
func appendDictionary(b []byte, flag string, d *evaluator.Decision) []byte {
	if len(b) > 0 {
		b = append(b, ", "...)
	}
	if c := flag[0]; c >= '0' && c <= '9' {
		b = append(b, '*') // keys begin with a letter or an asterisk
	}
	b = append(b, strings.ToLower(flag)...)
	switch d.Variant {
	case evaluator.On:
		return b
	case evaluator.Off:
		return append(b, "=?0"...)
	}
	b = append(b, '=')
	if c := d.Variant[0]; c >= '0' && c <= '9' {
		return append(append(append(b, '"'), d.Variant...), '"')
	}
	return append(b, d.Variant...)
}

// valueText gives a JSON value as a placeholder shows it.
func valueText(value json.RawMessage) string {
	var s string
	if len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}
