package caddymodule

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// pins keep browsers that have loaded a page of the canary on the canary for a while,
// so that what the page asks for comes from where the page came from. A signed
// cookie says so; whoever has it keeps the variant though the percentage falls or the
// definition changes, until the pin ends, the flag trips, or nobody may have it.
type pins struct {
	lengths map[string]time.Duration // by flag; filled while a config is provisioned
	key     storedKey
}

const (
	pinCookie    = "feature_flags_pin_" // and the flag's name
	pinnedDetail = "pinned"
	shortestPin  = time.Second
	longestPin   = 24 * time.Hour
	clockSkew    = time.Minute // of instances that share a key
)

// add has a flag pinned for a while.
func (p *pins) add(ctx caddy.Context, flag string, length time.Duration) {
	if p.lengths == nil {
		p.lengths = map[string]time.Duration{}
		p.key.use(ctx, "pin")
	}
	p.lengths[flag] = max(length, p.lengths[flag])
}

// pin is what a cookie says.
type pin struct {
	variant         string
	issued, expires time.Time
}

// value signs the pin of a flag.
func (p pin) value(s *signer, flag string) string {
	head := p.variant + "~" + strconv.FormatInt(p.issued.Unix(), 36) + "~" + strconv.FormatInt(p.expires.Unix(), 36)
	return head + "~" + s.sign(flag, head)
}

// readPin verifies what a cookie says of a flag.
func readPin(s *signer, flag, value string) (p pin, ok bool) {
	end := strings.LastIndexByte(value, '~')
	if end < 0 || len(value) > 512 || !s.verify(value[end+1:], flag, value[:end]) {
		return pin{}, false
	}
	parts := strings.Split(value[:end], "~")
	if len(parts) != 3 {
		return pin{}, false
	}
	issued, err := strconv.ParseInt(parts[1], 36, 64)
	expires, err2 := strconv.ParseInt(parts[2], 36, 64)
	return pin{parts[0], time.Unix(issued, 0), time.Unix(expires, 0)}, err == nil && err2 == nil
}

// of returns the pin of a flag that a request brings, if it holds: since is when the
// flag last tripped.
func (p *pins) of(r *http.Request, flag string, since, now time.Time) (found pin, ok bool) {
	s := p.key.signer.Load()
	if s == nil {
		return pin{}, false
	}
	value := cookieValue(r, pinCookie+flag)
	if value == "" {
		return pin{}, false
	}
	found, ok = readPin(s, flag, value)
	switch {
	case !ok, !now.Before(found.expires), found.expires.Sub(found.issued) > p.lengths[flag]:
		return pin{}, false
	case !found.issued.After(since), found.issued.After(now.Add(clockSkew)):
		return pin{}, false
	}
	return found, true
}

// touch tells whether a flag's decision can depend on a pin: its own, or one of a flag
// that it looks at.
func (p *pins) touch(def *evaluator.Flag) bool {
	return len(p.lengths) > 0 && (p.lengths[def.Name] > 0 || len(def.DependsOn) > 0 || def.Exclusive != "")
}

// takePins puts in force what the request's pins say, where that is not what the
// flags come to anyway, and nobody else has decided.
func (rq *request) takePins(r *http.Request) {
	defer rq.app.survive("reading pins")
	if len(rq.app.pins.lengths) == 0 || len(r.Header["Cookie"]) == 0 {
		return
	}
	found := map[int]pin{}
	for flag := range rq.app.pins.lengths {
		if i := rq.rules.Index(flag); i >= 0 && !rq.isImposed(i) {
			if p, ok := rq.app.pins.of(r, flag, rq.rules.monitors[i].tripped, rq.arrival); ok {
				found[i] = p
			}
		}
	}
	// A flag that depends on a pinned one may be on only when that is: until no more
	// follow. What is asked here must not be remembered as decided.
	for again := true; again; {
		again = false
		for i, p := range found {
			var e evaluator.Evaluation
			e.Reset(rq.rules.Ruleset, &rq.ctx, rq.arrival)
			for _, o := range rq.imposed {
				e.Impose(o.flag, o.decision)
			}
			own := e.Decide(i)
			if own.Reason == evaluator.ReasonDisabled {
				continue
			}
			delete(found, i)
			if d, ok := rq.rules.Decision(i, p.variant, evaluator.ReasonTargetingMatch, pinnedDetail); ok && d.Enabled && own.Variant != p.variant {
				rq.impose(i, d)
				again = true
			}
		}
	}
}

// pinning gives a browser a pin when its page comes well from the canary.
type pinning struct {
	rq     *request
	flag   string
	length time.Duration
	secure bool
	d      *evaluator.Decision
}

// pinFor returns what is to be done when the canary answers a request; nil: nothing.
func (rt *Route) pinFor(rq *request, i int, r *http.Request) *pinning {
	length := time.Duration(rt.Pin)
	if length == 0 || i < 0 {
		return nil
	}
	if !rt.NoVary {
		rq.varyOn("Cookie")
	}
	d := rq.eval.Decide(i)
	if !d.Enabled || d.Detail == pinnedDetail || d.Detail == testerDetail || rq.copied || !isPage(r) {
		return nil
	}
	now := rq.arrival
	if p, ok := rq.app.pins.of(r, rt.Flag, rq.rules.monitors[i].tripped, now); ok && p.variant == d.Variant && p.expires.Sub(now) > length/2 {
		return nil // it has a while to go
	}
	return &pinning{rq: rq, flag: rt.Flag, length: length, secure: isSecure(r), d: d}
}

// isPage tells whether a request may be for a page rather than for a part of one.
// Browsers say; of others any GET may be.
func isPage(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "", "document", "iframe", "frame":
		return true
	}
	return false
}

// begins is called when the answer does.
func (p *pinning) begins(status int, h http.Header) {
	s := p.rq.app.pins.key.signer.Load()
	if status >= 400 || s == nil {
		return
	}
	// Issued when the canary was chosen: a trip since then ends it.
	issued := p.rq.arrival
	value := pin{p.d.Variant, issued, issued.Add(p.length)}.value(s, p.flag)
	c := http.Cookie{
		Name: pinCookie + p.flag, Value: value, Path: "/", MaxAge: int(p.length / time.Second),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: p.secure,
	}
	h["Set-Cookie"] = append(h["Set-Cookie"], c.String())
}
