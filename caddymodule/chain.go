package caddymodule

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dunglas/httpsfv"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// Propagate signs the decisions that are told and passes them on in one request
// header, for a next hop that trusts them instead of deciding again.
//
// The header is
//
//	Feature-Decisions: v1.EXPIRY.USER.MAC DECISIONS
//
// with Unix seconds, a pseudonym of the targeting key ("-" for none), HMAC-SHA256,
// and an RFC 9651 dictionary of the flags' variants with the first letter of each
// reason. It holds no identity. Signed for one environment, it says nothing in
// another.
type Propagate struct {
	// Keys are secrets of 16 bytes or more; placeholders are resolved when the
	// config is loaded. The first one signs.
	Keys []string `json:"keys"`

	// TTL is for how long it is believed. Default: 1m; at most 1h.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Baggage tells the variants in W3C baggage, too, as feature_flag.NAME=VARIANT,
	// unsigned, for applications that read that.
	Baggage bool `json:"baggage,omitempty"`

	signer *signer
}

// Trust uses the decisions that an earlier hop has signed instead of deciding again.
// Those that are forged, expired, too large or made for another user are removed and
// not believed. A flag that has tripped here, or that somebody has disabled here,
// stays off.
//
// The user is compared where the context of this site has a user_id.
type Trust struct {
	// Keys of earlier hops, as in Propagate; any of them will do.
	Keys []string `json:"keys"`

	signer *signer
}

const (
	decisionsHeader = "Feature-Decisions"
	decisionsWord   = "v1"
	mostDecisions   = 8 << 10 // bytes of the header
	usualTTL        = time.Minute
	mostTTL         = time.Hour
	nobody          = "-"
)

func (p *Propagate) provision() (err error) {
	switch ttl := time.Duration(p.TTL); {
	case ttl == 0:
		p.TTL = caddy.Duration(usualTTL)
	case ttl < time.Second || ttl > mostTTL:
		return fmt.Errorf("ttl: want a duration from 1s to 1h, got %s", ttl)
	}
	p.signer, err = configuredSigner("decisions", p.Keys)
	return err
}

func (t *Trust) provision() (err error) {
	t.signer, err = configuredSigner("decisions", t.Keys)
	return err
}

// chainHeaders owns the header of signed decisions, and baggage, where clients must
// have no say in what is ours.
type chainHeaders struct{}

func (chainHeaders) owns(name string) bool {
	return equalHeader(name, decisionsHeader) || equalHeader(name, baggageHeader)
}

// stripChain removes what a client has put where earlier hops speak, and returns the
// lines with signed decisions. Others' baggage stays.
func stripChain(r *http.Request) (signed []string) {
	signed = r.Header[decisionsHeader]
	theirs := stripBaggage(r.Header[baggageHeader])
	stripOwned(r, chainHeaders{})
	if len(theirs) > 0 {
		r.Header[baggageHeader] = []string{strings.Join(theirs, ",")}
	}
	return signed
}

// propagate signs what is told of a request and has r pass it on.
func (h *Handler) propagate(rq *request, s *siteRules, header http.Header, decisions string) {
	p := h.Propagate
	if p.Baggage {
		setBaggage(header, s, rq.eval.Decide)
	}
	if len(decisions) > mostDecisions-200 {
		delete(header, decisionsHeader)
		h.app.quiet.warn(time.Now(), "propagate_size", "the decisions on so many flags are too long to be passed on; restrict them by `flags`", zap.Int("bytes", len(decisions)), zap.Int("limit", mostDecisions-200))
		return
	}
	if decisions == "" {
		return
	}
	user := cmp.Or(rq.trustedUser, nobody)
	if key := rq.ctx.TargetingKey(); key != "" {
		user = p.signer.pseudonym(key)
	}
	expiry := strconv.FormatInt(rq.arrival.Add(time.Duration(p.TTL)).Unix(), 10)
	head := decisionsWord + "." + expiry + "." + user
	header[decisionsHeader] = []string{head + "." + p.signer.sign(head, rq.ctx.Environment, decisions) + " " + decisions}
}

// chain writes the decisions of a site with their reasons, marking those of testers
// (x) and of users whom another flag of an exclusive group has (n).
func (s *siteRules) chain(rq *request) string {
	b := make([]byte, 0, min(len(s.told)*32, 4096))
	for k, i := range s.told {
		if i < 0 {
			continue
		}
		d := rq.eval.Decide(i)
		b = appendDictionary(b, s.flags[k], d)
		b = append(append(b, ";r="...), reasonLetters[d.Reason]...)
		if d.Reason == evaluator.ReasonSplit && !rq.compared(i, d) {
			b = append(b, ";n"...)
		}
		if rq.exempt {
			b = append(b, ";x"...)
		}
	}
	return string(b)
}

// reasonLetters stand for reasons in the header.
var reasonLetters = map[evaluator.Reason]string{
	evaluator.ReasonStatic: "c", evaluator.ReasonDefault: "f", evaluator.ReasonTargetingMatch: "t",
	evaluator.ReasonSplit: "s", evaluator.ReasonDisabled: "d", evaluator.ReasonError: "e",
}

func reasonOf(letter string) evaluator.Reason {
	for reason, l := range reasonLetters {
		if l == letter {
			return reason
		}
	}
	return evaluator.ReasonDefault
}

// Why signed decisions are not believed.
const (
	chainMalformed = "malformed"
	chainLarge     = "oversized"
	chainForged    = "forged"
	chainExpired   = "expired"
	chainUser      = "user"
)

// whatToDo says what ends the refusals of each cause, where nobody forges.
var whatToDo = map[string]string{
	chainMalformed: "some hop in between changes or doubles the header " + decisionsHeader,
	chainLarge:     "have the earlier hop tell fewer flags, by `flags` in its feature_flags block",
	chainForged:    "compare the keys of `propagate` and `trust`, and the environments of both",
	chainExpired:   "compare the hops' clocks, and `ttl` of `propagate` with what a request takes",
	chainUser:      "both hops must take user_id from the same place",
}

// takeTrusted takes the decisions that an earlier hop has signed, and returns the
// header's line where it is believed.
func (h *Handler) takeTrusted(rq *request, lines []string) (line string) {
	if len(lines) == 0 {
		return ""
	}
	user, decisions, cause := h.Trust.read(lines, rq.ctx.Environment, rq.arrival)
	if cause == "" && h.readsUser {
		if key := rq.ctx.TargetingKey(); key == "" && user != nobody || key != "" && !h.Trust.signer.isPseudonym(user, key) {
			cause = chainUser
		}
	}
	whole := false
	if cause == "" {
		whole, cause = h.believe(rq, user, decisions)
	}
	if cause != "" {
		decisionsRefused.WithLabelValues(cause).Inc()
		h.app.quiet.warn(rq.arrival, "trust_"+cause, "signed decisions of an earlier hop are not believed; decided here", zap.String("cause", cause), zap.String("hint", whatToDo[cause]))
	}
	if !whole {
		return ""
	}
	return lines[0]
}

// read verifies the header; cause says why it is not to be believed.
func (t *Trust) read(lines []string, environment string, now time.Time) (user, decisions, cause string) {
	if len(lines) != 1 {
		return "", "", chainMalformed
	}
	line := lines[0]
	if len(line) > mostDecisions {
		return "", "", chainLarge
	}
	head, decisions, found := strings.Cut(line, " ")
	parts := strings.Split(head, ".")
	if !found || len(parts) != 4 || parts[0] != decisionsWord {
		return "", "", chainMalformed
	}
	head = strings.TrimSuffix(head, "."+parts[3])
	if !t.signer.verify(parts[3], head, environment, decisions) {
		return "", "", chainForged
	}
	expiry, err := strconv.ParseInt(parts[1], 10, 64)
	switch {
	case err != nil:
		return "", "", chainMalformed
	case now.Unix() >= expiry || expiry-now.Unix() > int64(mostTTL/time.Second):
		return "", "", chainExpired
	}
	return parts[2], decisions, ""
}

// believe puts verified decisions in force for the request. What this hop does not
// know, and what it must keep off, it decides itself; whole tells that it has not
// contradicted.
func (h *Handler) believe(rq *request, user, decisions string) (whole bool, cause string) {
	members, err := httpsfv.UnmarshalDictionary([]string{decisions})
	if err != nil {
		return false, chainMalformed
	}
	if user != nobody {
		rq.trustedUser = user
	}
	whole = true
	keys := rq.rules.dictionaryKeys()
	for _, name := range members.Names() {
		i, known := keys[name]
		member, _ := members.Get(name)
		item, isItem := member.(httpsfv.Item)
		if !known || !isItem {
			continue
		}
		d, ok := trusted(rq.rules, i, item)
		if !ok {
			continue
		}
		_, tester := item.Params.Get("x")
		rq.exempt = rq.exempt || tester
		switch s := rq.rules.State(i); {
		case s.Override == evaluator.Disabled || s.Tripped != "" && !s.Probing:
			whole = whole && !d.Enabled
			continue
		case s.Probing && h.readsUser:
			whole = false
			continue
		case s.Probing:
			if d = h.probed(rq, i, d); d == nil {
				whole = false
				continue
			}
		}
		rq.impose(i, d)
	}
	return whole, ""
}

// trusted is the decision that a member of the dictionary stands for.
func trusted(r *rules, i int, item httpsfv.Item) (*evaluator.Decision, bool) {
	variant := ""
	switch v := item.Value.(type) {
	case bool:
		variant = map[bool]string{true: evaluator.On, false: evaluator.Off}[v]
	case httpsfv.Token:
		variant = string(v)
	case string:
		variant = v
	}
	reason, detail := evaluator.ReasonDefault, trustedDetail
	if given, ok := item.Params.Get("r"); ok {
		letter, _ := given.(httpsfv.Token)
		reason = reasonOf(string(letter))
	}
	if _, ok := item.Params.Get("n"); ok {
		detail = apartDetail
	}
	if _, ok := item.Params.Get("x"); ok {
		detail = testerDetail
	}
	return r.Decision(i, variant, reason, detail)
}

// probed is what becomes of a decision while flag i is half-open here and only the
// earlier hop knows who asks: of its canary a hundredth is let through. nil: nothing,
// since no split has decided.
func (h *Handler) probed(rq *request, i int, d *evaluator.Decision) *evaluator.Decision {
	if d.Reason != evaluator.ReasonSplit || rq.trustedUser == "" {
		return nil
	}
	if d.Enabled && evaluator.Bucket(rq.trustedUser, rq.rules.names[i]) >= 1 {
		d, _ = rq.rules.Decision(i, evaluator.Off, evaluator.ReasonSplit, trustedDetail)
	}
	return d
}

// Details of decisions that others have made.
const (
	trustedDetail = "trusted" // an earlier hop
	apartDetail   = "apart"   // an earlier hop, of a user whom another flag of an exclusive group has
	testerDetail  = "tester"  // a signed link; it never counts as evidence
)

// dictionaryKeys are the flags by their keys in a dictionary.
func (b *rules) dictionaryKeys() map[string]int {
	b.keysOnce.Do(func() {
		b.keys = make(map[string]int, len(b.names))
		for i, name := range b.names {
			key, _, _ := strings.Cut(string(appendDictionary(nil, name, evaluator.Unknown(name))), "=")
			b.keys[key] = i
		}
	})
	return b.keys
}

// Bounds of W3C baggage, and what our members begin with.
const (
	baggageHeader  = "Baggage"
	baggagePrefix  = "feature_flag."
	baggageMembers = 64
	baggageBytes   = 8192
)

// setBaggage tells the variants as W3C baggage, beside what others have put there
// and in place of what anybody has under our names. Where there is no room for all,
// those that are on are told; where there is none for these, nothing is.
func setBaggage(header http.Header, s *siteRules, decide func(flag int) *evaluator.Decision) {
	theirs, ours, on := stripBaggage(header[baggageHeader]), []string{}, []string{}
	for k, i := range s.told {
		if i < 0 {
			continue
		}
		d := decide(i)
		member := baggagePrefix + s.flags[k] + "=" + d.Variant
		if ours = append(ours, member); d.Enabled {
			on = append(on, member)
		}
	}
	for _, some := range [][]string{ours, on, nil} {
		all := append(slices.Clip(theirs), some...)
		line := strings.Join(all, ",")
		if some == nil || len(all) <= baggageMembers && len(line) <= baggageBytes {
			if header[baggageHeader] = []string{line}; line == "" {
				delete(header, baggageHeader)
			}
			return
		}
	}
}

// stripBaggage returns the members that are not ours.
func stripBaggage(lines []string) (theirs []string) {
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			if member = strings.TrimSpace(member); member != "" && !strings.HasPrefix(strings.ToLower(member), baggagePrefix) {
				theirs = append(theirs, member)
			}
		}
	}
	return theirs
}
