package caddymodule

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"sync/atomic"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// clientFlags are the flags that clients may see, ready to be told. Immutable but
// for its caches.
type clientFlags struct {
	rules    *rules
	from     time.Time
	until    time.Time // a date changes decisions then; zero: never
	since    time.Time // when the revision was first known
	flags    []int     // those with `client: true`
	place    []int32   // by flag: its place among them, or -1
	content  []byte    // stands for all that can be told of them
	revision string    // of the definitions and the state that their decisions depend on
	decided  *contextCache[clientCodes]
	told     []atomic.Pointer[toldFlag] // by flag, variant and reason: what clients are told; made when first needed
	first    []int                      // by place: its first in told
	asked    atomic.Int64               // when somebody last asked for all, in seconds
}

// clientFlags returns those of the rules, making them when they are new or a date has
// been reached.
func (a *App) clientFlags(r *rules, now time.Time) *clientFlags {
	c := a.clients.Load()
	if c.is(r, now) {
		return c
	}
	a.making.Lock()
	defer a.making.Unlock()
	before := a.clients.Load()
	if before.is(r, now) {
		return before
	}
	c = newClientFlags(r, now, a.clientKey(), a.environment, a.siteTexts())
	if c.since = now; before != nil && before.revision == c.revision {
		c.since = before.since
	}
	if r == a.rules.Load() { // else they are of a request that has taken its time
		a.clients.Store(c)
	}
	return c
}

// is tells whether these are of the rules, at now.
func (c *clientFlags) is(r *rules, now time.Time) bool {
	return c != nil && c.rules == r && !now.Before(c.from) && (c.until.IsZero() || now.Before(c.until))
}

// clientKey keeps what tags are made of from being guessed.
func (a *App) clientKey() []byte {
	switch s := a.streamKey.signer.Load(); {
	case len(a.tagKey) > 0:
		return a.tagKey
	case s != nil:
		return s.keys[0]
	}
	return nil
}

// newClientFlags makes those of the rules at now. key keeps tags from being guessed, and
// the environment and sites say who gets what, too.
func newClientFlags(r *rules, now time.Time, key []byte, environment string, sites []string) *clientFlags {
	c := &clientFlags{rules: r, from: now, until: r.StableUntil(now), place: make([]int32, r.Len())}
	content := hmac.New(sha256.New, key)
	concerns, all := make([]bool, r.Len()), 0
	for i := range r.Len() {
		def := r.Definition(i)
		c.place[i] = -1
		if !def.Client {
			continue
		}
		c.place[i] = int32(len(c.flags))
		c.flags = append(c.flags, i)
		c.first = append(c.first, all)
		all += c.codes(i)
		part(content, def.Name)
		for _, v := range r.Variants(i) {
			part(content, v, string(r.Value(i, v)))
		}
		part(content)
		for _, j := range r.Concerns(i) {
			concerns[j] = true
		}
	}
	c.content = content.Sum(nil)
	c.told = make([]atomic.Pointer[toldFlag], all)
	c.decided = newContextCache[clientCodes](r, c.flags, 2*len(c.flags)+256)
	revision := hmac.New(sha256.New, key)
	part(revision, environment)
	part(revision, sites...)
	for _, g := range r.Segments() {
		part(revision, append([]string{g.Name, g.When}, g.Users...)...)
	}
	for i, does := range concerns {
		if !does {
			continue
		}
		def, s := r.Definition(i), r.State(i)
		share := ""
		if s.Share != nil {
			share = fmt.Sprint(int64(*s.Share))
		}
		begun, over := !now.Before(def.ActivationDate), !def.DeactivationDate.IsZero() && !now.Before(def.DeactivationDate)
		part(revision, def.Name, string(def.Raw), string(s.Override), s.Tripped, fmt.Sprint(s.Probing, begun, over), share)
	}
	c.revision = short(revision.Sum(nil))
	return c
}

// part writes texts to a hash, so that no others give the same.
func part(h hash.Hash, texts ...string) {
	var n [4]byte
	for _, t := range texts {
		binary.BigEndian.PutUint32(n[:], uint32(len(t)+1))
		h.Write(n[:])
		h.Write([]byte(t))
	}
	h.Write(make([]byte, 4))
}

func short(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum[:16]) }

// tagOf is the ETag of what has the sum.
func tagOf(sum [sha256.Size]byte) string { return `"` + short(sum[:]) + `"` }

// codes is how many different answers flag i can have: one for each variant and
// reason, and one for a flag that cannot be decided.
func (c *clientFlags) codes(i int) int { return len(c.rules.Variants(i))*len(evaluator.Reasons) + 1 }

// code numbers a decision on the flag at a place.
func (c *clientFlags) code(i int, d *evaluator.Decision) uint16 {
	if d.Code == evaluator.General {
		return uint16(c.codes(i) - 1)
	}
	return c.rules.code(d)
}

// toldFlag is what clients are told of a flag: one object of OFREP, as JSON.
type toldFlag struct {
	text   []byte
	line   []byte // the same as an answer of its own
	failed bool   // it tells that there is no decision
}

// answer returns what clients are told of a decision on the flag at place k. It must
// not be changed.
func (c *clientFlags) answer(k int, code uint16) *toldFlag {
	where := &c.told[c.first[k]+int(code)]
	if told := where.Load(); told != nil {
		return told
	}
	i := c.flags[k]
	var answer any = undecided(c.rules.names[i])
	if code < uint16(c.codes(i)-1) {
		variant := c.rules.Variants(i)[int(code)/len(evaluator.Reasons)]
		answer = clientAnswer(c.rules.names[i], variant, evaluator.Reasons[int(code)%len(evaluator.Reasons)], c.rules.Value(i, variant))
	}
	text, err := json.Marshal(answer)
	if err != nil { // a value that is no JSON: definitions are checked, so there is none
		answer = undecided(c.rules.names[i])
		text, _ = json.Marshal(answer)
	}
	told := &toldFlag{text: text, line: append(text, '\n')}
	_, told.failed = answer.(ofrepFailure)
	where.Store(told)
	return told
}

// ofrepSuccess is a decision as OFREP tells it. Details, rules and metadata stay
// here: who asks is not to learn why.
type ofrepSuccess struct {
	Key     string          `json:"key"`
	Value   json.RawMessage `json:"value,omitempty"` // none: the code's own default
	Reason  string          `json:"reason"`
	Variant string          `json:"variant"`
}

// ofrepFailure is the answer where there is no decision. Key is that of the flag,
// "" where all were asked for.
type ofrepFailure struct {
	Key     string `json:"key,omitempty"`
	Code    string `json:"errorCode"`
	Details string `json:"errorDetails"`
}

// Error codes of OFREP beside those of decisions.
const (
	parseError     = "PARSE_ERROR"
	invalidContext = "INVALID_CONTEXT"
)

func undecided(flag string) ofrepFailure {
	return ofrepFailure{flag, string(evaluator.General), "the flag cannot be decided; the server's log says more"}
}

func clientAnswer(flag, variant string, reason evaluator.Reason, value json.RawMessage) any {
	switch {
	case reason == evaluator.ReasonError:
		return ofrepFailure{flag, string(evaluator.TargetingKeyMissing), "the context lacks what the flag is split by: want a targetingKey"}
	case bytes.HasPrefix(value, []byte("[")):
		return ofrepFailure{flag, string(evaluator.General), "the variant's value is a list, which the protocol cannot carry: want an object around it"}
	case string(value) == "null":
		value = nil
	}
	return ofrepSuccess{flag, value, string(reason), variant}
}

// clientCodes are the codes of all flags for a context, and what stands for their
// answers.
type clientCodes struct {
	codes []uint16
	sum   *[sha256.Size]byte
}

// decide gives the codes of all flags for a request.
func (c *clientFlags) decide(rq *request) clientCodes {
	var room [512]byte
	var key []byte
	if c.decided != nil && len(rq.imposed) == 0 {
		codes, k, found := c.decided.find(&rq.ctx, room[:0])
		if found {
			return codes
		}
		key = k
	}
	codes := make([]uint16, len(c.flags))
	for k, i := range c.flags {
		d := rq.eval.Decide(i)
		rq.app.seeUndecided(rq.arrival, d)
		codes[k] = c.code(i, d)
	}
	out := clientCodes{codes, c.sum(codes)}
	if key != nil {
		c.decided.add(key, out)
	}
	return out
}

// sum stands for the answers of the codes. Who has not the key cannot guess it.
func (c *clientFlags) sum(codes []uint16) *[sha256.Size]byte {
	text := make([]byte, 0, len(c.content)+2*len(codes))
	text = append(text, c.content...)
	for _, code := range codes {
		text = binary.BigEndian.AppendUint16(text, code)
	}
	sum := sha256.Sum256(text)
	return &sum
}

// etag stands for the answers of the codes, and for the address of the stream that
// goes with them.
func (codes *clientCodes) etag(stream string) string {
	var room [256]byte
	return tagOf(sha256.Sum256(append(append(room[:0], codes.sum[:]...), stream...)))
}

// askedBy notes that somebody asks for all flags, every few seconds.
func (c *clientFlags) askedBy(now time.Time) {
	if last := c.asked.Load(); now.Unix()-last < 5 || !c.asked.CompareAndSwap(last, now.Unix()) {
		return
	}
	for _, i := range c.flags {
		c.rules.monitors[i].flag.Ask(now)
	}
}
