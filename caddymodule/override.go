package caddymodule

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// Override lets testers see a variant of their choice, by a signed link that `caddy
// feature-flags override-link` makes. It puts a cookie into one browser, which holds
// until the link ends.
//
// What testers do is marked in the access log and counts as no evidence: not for the
// guard, not for thresholds. No fallback hides from them what the canary does. A flag
// that has tripped, or that somebody has disabled, stays off for them, too, unless
// the link says otherwise.
type Override struct {
	// Keys are secrets of 16 bytes or more; placeholders are resolved when the
	// config is loaded. The first one signs.
	Keys []string `json:"keys"`

	signer *signer
}

// overrideName is that of the query parameter and of the cookie.
const (
	overrideName = "feature_flags_override"
	overrideEnd  = "end" // takes the cookie away
	mostOverride = 2048  // bytes of a token
	longestLink  = 30 * 24 * time.Hour
)

func (o *Override) provision() (err error) {
	o.signer, err = configuredSigner("override", o.Keys)
	return err
}

// testerLink is what a link says.
type testerLink struct {
	ID      string            // for the log
	Host    string            // of the site it is for, without the port
	Flags   map[string]string // variant by flag
	Force   bool              // also for flags that have tripped or are disabled
	Expires time.Time
}

// token signs the link.
func (l *testerLink) token(s *signer) string {
	q := url.Values{}
	for flag, variant := range l.Flags {
		q.Add("f", flag+"="+variant)
	}
	slices.Sort(q["f"])
	if l.Force {
		q.Set("force", "1")
	}
	head := "v1." + strconv.FormatInt(l.Expires.Unix(), 10) + "." + l.ID + "." + base64.RawURLEncoding.EncodeToString([]byte(q.Encode()))
	return head + "." + s.sign(head, l.Host)
}

// Why a link is not believed, beside what is wrong with other signed things.
var (
	errLinkMalformed = errors.New("malformed")
	errLinkForged    = errors.New("forged, or for another site")
	errLinkExpired   = errors.New("expired")
)

// readLink verifies a token for a site.
func readLink(s *signer, token, host string, now time.Time) (*testerLink, error) {
	if len(token) > mostOverride {
		return nil, errLinkMalformed
	}
	end := strings.LastIndexByte(token, '.')
	parts := strings.Split(token, ".")
	if len(parts) != 5 || parts[0] != "v1" {
		return nil, errLinkMalformed
	}
	if !s.verify(parts[4], token[:end], host) {
		return nil, errLinkForged
	}
	expires, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return nil, errLinkMalformed
	}
	l := &testerLink{ID: parts[2], Host: host, Flags: map[string]string{}, Expires: time.Unix(expires, 0)}
	if !now.Before(l.Expires) {
		return nil, errLinkExpired
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[3])
	if err != nil {
		return nil, errLinkMalformed
	}
	q, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, errLinkMalformed
	}
	for _, f := range q["f"] {
		flag, variant, _ := strings.Cut(f, "=")
		l.Flags[flag] = variant
	}
	l.Force = q.Get("force") == "1"
	return l, nil
}

// hostOf is the host of a request, as links name it.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
}

// follow answers a request for a link: the browser gets the cookie, and is sent on to
// the same address without the token.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || !strings.Contains(r.URL.RawQuery, overrideName+"=") {
		return false
	}
	target := *originalURL(r)
	given, rest, found := cutParameter(target.RawQuery)
	if !found {
		return false
	}
	cookie := &http.Cookie{Name: overrideName, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: isSecure(r)}
	now := time.Now()
	if given == overrideEnd {
		cookie.MaxAge = -1
		http.SetCookie(w, cookie)
	} else if l, err := readLink(h.Override.signer, given, hostOf(r.Host), now); err != nil {
		h.app.quiet.warn(now, "override_link", "a link for testers is not believed", zap.Error(err))
	} else {
		cookie.Value, cookie.MaxAge = given, max(1, int(l.Expires.Sub(now)/time.Second))
		http.SetCookie(w, cookie)
		h.log.Info("a browser follows a link for testers", zap.String("link", l.ID), zap.Any("flags", l.Flags), zap.Time("until", l.Expires))
	}
	target.RawQuery, target.ForceQuery = rest, false
	to := target.RequestURI()
	if strings.HasPrefix(to, "//") {
		to = "/." + to // else the path would be taken for a host
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
	return true
}

// cutParameter takes the token out of a query, and leaves the rest as it is.
func cutParameter(query string) (token, rest string, found bool) {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if value, ok := strings.CutPrefix(part, overrideName+"="); ok {
			token, found = value, true
		} else {
			kept = append(kept, part)
		}
	}
	return token, strings.Join(kept, "&"), found
}

// takeOverride puts in force what a tester's cookie says.
func (h *Handler) takeOverride(rq *request, r *http.Request) {
	token := cookieValue(r, overrideName)
	if token == "" {
		return
	}
	l, err := readLink(h.Override.signer, token, hostOf(r.Host), rq.arrival)
	if err != nil {
		h.app.quiet.warn(rq.arrival, "override_cookie", "a tester's cookie is not believed", zap.Error(err))
		return
	}
	for flag, variant := range l.Flags {
		i := rq.rules.Index(flag)
		if i < 0 {
			continue
		}
		if s := rq.rules.State(i); !l.Force && (s.Tripped != "" || s.Override == evaluator.Disabled) {
			continue
		}
		if d, ok := rq.rules.Decision(i, variant, evaluator.ReasonTargetingMatch, testerDetail); ok {
			rq.impose(i, d)
			rq.tester, rq.exempt = l.ID, true
		}
	}
}

// linkRequest is what an operator asks of the API.
type linkRequest struct {
	URL    string            `json:"url"`
	Flags  map[string]string `json:"flags"`
	For    string            `json:"for"`
	Force  bool              `json:"force"`
	Reason string            `json:"reason"`
	By     string            `json:"by"`
}

// linkReply is the answer.
type linkReply struct {
	ID      string    `json:"id"` // as the access log names it
	Link    string    `json:"link"`
	Cookie  string    `json:"cookie"` // for clients that follow no links
	Expires time.Time `json:"expires"`
}

// makeLink makes what was asked for; the error says what is wrong with it.
func makeLink(s *signer, q linkRequest, now time.Time) (linkReply, error) {
	u, err := url.Parse(q.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return linkReply{}, fmt.Errorf("url: want the address of a page as https://shop.example/, got %q", q.URL)
	case len(q.Flags) == 0:
		return linkReply{}, errors.New("flags: want one or more, as new_ui=on")
	}
	length := 8 * time.Hour
	if q.For != "" {
		if length, err = caddy.ParseDuration(q.For); err != nil || length < time.Second || length > longestLink {
			return linkReply{}, fmt.Errorf("for: want a duration from 1s to 30d as 2h, got %q", q.For)
		}
	}
	l := testerLink{ID: strings.ToLower(rand.Text()[:10]), Host: hostOf(u.Host), Flags: q.Flags, Force: q.Force, Expires: now.Add(length).Truncate(time.Second)}
	token := l.token(s)
	if len(token) > mostOverride {
		return linkReply{}, fmt.Errorf("flags: %d are too many for one link", len(q.Flags))
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += overrideName + "=" + token
	return linkReply{ID: l.ID, Link: u.String(), Cookie: overrideName + "=" + token, Expires: l.Expires.UTC()}, nil
}

func (a *App) serveOverrideLink(w http.ResponseWriter, r *http.Request) error {
	var q linkRequest
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	if err := (order{q.Reason, q.By}).check(); err != nil {
		return err
	}
	q.By = cmp.Or(q.By, "api")
	rs := a.rules.Load()
	for flag, variant := range q.Flags {
		i := rs.Index(flag)
		if i < 0 {
			return problem(http.StatusNotFound, "flag %q is not defined%s", flag, didYouMean(flag, rs.names))
		}
		if !slices.Contains(rs.Variants(i), variant) {
			return problem(http.StatusBadRequest, "flag %q has no variant %q; there are %s", flag, variant, strings.Join(rs.Variants(i), ", "))
		}
	}
	switch {
	case len(a.overrides) == 0:
		return problem(http.StatusConflict, "no site of the config has `override` in its feature_flags block")
	case slices.ContainsFunc(a.overrides, func(s *signer) bool { return string(s.keys[0]) != string(a.overrides[0].keys[0]) }):
		return problem(http.StatusConflict, "sites have different keys for `override`: say which one by --key-env")
	}
	now := time.Now()
	made, err := makeLink(a.overrides[0], q, now)
	if err != nil {
		return problem(http.StatusBadRequest, "%v", err)
	}
	for _, flag := range sortedKeys(q.Flags) {
		a.engine.store.Note(now, state.AuditEntry{Action: "override_link", Flag: flag, By: q.By, Reason: strings.TrimPrefix(q.Reason+"; "+q.Flags[flag]+" by link "+made.ID+" until "+made.Expires.Format(time.RFC3339), "; ")})
	}
	return reply(w, made)
}
