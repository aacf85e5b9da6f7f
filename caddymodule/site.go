package caddymodule

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// siteRules is what a feature_flags handler makes of one ruleset, so that
// requests find it ready: header names, what responses vary by, and the
// decisions on recent contexts. Immutable but for the cache.
type siteRules struct {
	rules *rules
	signs bool      // decisions are passed on to a next hop
	until time.Time // a date changes decisions then; zero: never
	told  []int     // flags told to the application, -1 an unknown one
	flags []string  // their names
	place []int32   // by flag: its place among those told, or -1
	names []string  // of their headers; nil for a list
	vary  []string  // by flag: the headers its decision is read from

	alone   []bool       // by place: the flag is followed on its own
	watched int          // how many are
	counted []counted    // the others
	logged  []loggedFlag // of these, whose canary and control are compared
	log     *bulkLog     // of their requests; nil: there are none

	// Recent decisions on many flags at once; nil where deciding anew is as cheap.
	sets *contextCache[spelledSet]
}

// counted is a flag that only needs counting: its place among those told and its
// first cell in the rules.
type counted struct {
	place int32
	cell  uint32
}

// loggedFlag is a flag whose guard is given the site's requests: its place among those
// told, its number, and the number of its variant `off`.
type loggedFlag struct {
	place int32
	flag  int
	off   int
}

// decisionSet is what one context comes to for all flags of a site, in the
// order in which they are told: small, since there is one for each recent user.
// Who needs more than variant and reason decides that flag anew.
type decisionSet struct {
	codes []uint16 // of variant and reason, see rules.code; unknownFlag

	// By place: the split says off, and another flag of the group would have won
	// all the same. nil: nowhere.
	apart []bool
}

// spelledSet is a decision set with the texts that are made of it. The texts are much
// longer: who follows a request to its end holds the set without them.
type spelledSet struct {
	*decisionSet        // nil: none
	list         string // the header's value in list mode
	chain        string // what is passed on to a next hop, if anything is
}

const unknownFlag = math.MaxUint16

// fewestCached is from how many flags on a site's decisions are kept.
const fewestCached = 4

// siteRules returns the handler's view of r, making it when r is new to it or
// a date has been reached.
func (h *Handler) siteRules(r *rules, now time.Time) *siteRules {
	s := h.site.Load()
	if s != nil && s.rules == r && (s.until.IsZero() || now.Before(s.until)) {
		return s
	}
	s = h.newSiteRules(r, now)
	h.site.Store(s)
	return s
}

func (h *Handler) newSiteRules(r *rules, now time.Time) *siteRules {
	s := &siteRules{rules: r, signs: h.Propagate != nil, until: r.StableUntil(now), vary: make([]string, r.Len())}
	for i := range s.vary {
		s.vary[i] = strings.Join(r.headersOf(h, i), ", ")
	}
	if h.Headers.Mode == "off" {
		return s
	}
	s.place = make([]int32, r.Len())
	for i := range s.place {
		s.place[i] = -1
	}
	s.flags = h.Flags
	if len(s.flags) == 0 {
		s.flags = r.names
	}
	for _, name := range s.flags {
		i, alone := r.Index(name), false
		if i >= 0 {
			s.place[i] = int32(len(s.told))
			// A flag that splits by another attribute has other users.
			m := &r.monitors[i]
			if alone = m.watched || m.guarded && !slices.Contains([]string{"", evaluator.UserID}, r.Definition(i).HashBy); alone {
				s.watched++
			} else {
				s.counted = append(s.counted, counted{s.place[i], m.first})
				if m.guarded {
					s.logged = append(s.logged, loggedFlag{s.place[i], i, slices.Index(r.Variants(i), evaluator.Off)})
				}
			}
		}
		s.alone = append(s.alone, alone)
		s.told = append(s.told, i)
		if h.Headers.Mode != "list" {
			s.names = append(s.names, http.CanonicalHeaderKey(h.Headers.Name+evaluator.HeaderName(name)))
		}
	}
	if len(s.told) >= fewestCached {
		s.cache()
	}
	if len(s.logged) > 0 {
		s.log = newBulkLog(s)
	}
	return s
}

// cache makes room for decisions, unless they can depend on any attribute.
func (s *siteRules) cache() {
	entry := 2*len(s.told) + 256
	if s.names == nil {
		entry += 16 * len(s.told)
	}
	if s.signs {
		entry += 24 * len(s.told)
	}
	s.sets = newContextCache[spelledSet](s.rules, s.told, entry)
}

// varyOf returns the headers that flag i's decision is read from. A nil site is
// one without a feature_flags handler: there only the sticky id is known.
func (s *siteRules) varyOf(r *rules, i int) string {
	switch {
	case s != nil && s.rules == r:
		return s.vary[i]
	case slices.Contains(r.Reads(i), evaluator.UserID) || slices.Contains(r.Reads(i), "*"):
		return "Cookie"
	}
	return ""
}

// decideAll decides the flags that the site tells, by the cache; nothing where it
// cannot.
func (s *siteRules) decideAll(rq *request) (set spelledSet) {
	if s.sets == nil {
		return set
	}
	if len(rq.imposed) > 0 || rq.exempt {
		return s.newSet(rq) // nobody else's
	}
	var room [512]byte
	set, key, found := s.sets.find(&rq.ctx, room[:0])
	if found || key == nil {
		return set
	}
	set = s.newSet(rq)
	s.sets.add(key, set)
	return set
}

func (s *siteRules) newSet(rq *request) spelledSet {
	set := spelledSet{decisionSet: &decisionSet{codes: make([]uint16, len(s.told))}}
	for k, i := range s.told {
		if i < 0 {
			set.codes[k] = unknownFlag
		} else {
			d := rq.eval.Decide(i)
			rq.app.seeUndecided(rq.arrival, d)
			set.codes[k] = s.rules.code(d)
			if s.rules.monitors[i].guarded && d.Reason == evaluator.ReasonSplit && !rq.compared(i, d) {
				if set.apart == nil {
					set.apart = make([]bool, len(s.told))
				}
				set.apart[k] = true
			}
		}
	}
	if s.names == nil {
		set.list = s.dictionary(rq.eval.Decide)
	}
	if s.signs {
		set.chain = s.chain(rq)
	}
	return set
}

// dictionary writes the list header.
func (s *siteRules) dictionary(decide func(flag int) *evaluator.Decision) string {
	b := make([]byte, 0, min(len(s.told)*24, 4096))
	for k, i := range s.told {
		if i < 0 {
			b = appendDictionary(b, s.flags[k], evaluator.Unknown(s.flags[k]))
		} else {
			b = appendDictionary(b, s.flags[k], decide(i))
		}
	}
	return string(b)
}
