package caddymodule

import (
	"net/http"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// AttributeSource says where one attribute of the evaluation context comes
// from. Several sources of one attribute are asked in order until one gives a
// value.
type AttributeSource struct {
	// Attribute is the name in the context: user_id (the targeting key),
	// region, account_type, device, beta_program, or any other.
	Attribute string `json:"attribute"`

	// From is the kind of source: header, cookie, query, jwt, user_agent,
	// value or sticky.
	From string `json:"from"`

	// Key is the name of the header, cookie or query parameter, the dotted
	// path into the claims, or for value a text with placeholders. Empty for
	// user_agent and sticky. Whatever the client sent is never expanded.
	Key string `json:"key,omitempty"`
}

// source is an AttributeSource, looked up and ready.
type source struct {
	attribute evaluator.Attribute
	name      string
	kind      sourceKind
	key       string
	claim     int // number among the jwt sources
}

type sourceKind uint8

const (
	fromHeader sourceKind = iota
	fromCookie
	fromQuery
	fromJWT
	fromUserAgent
	fromValue
	fromSticky
)

var sourceKinds = map[string]sourceKind{
	"header": fromHeader, "cookie": fromCookie, "query": fromQuery, "jwt": fromJWT,
	"user_agent": fromUserAgent, "value": fromValue, "sticky": fromSticky,
}

// sourceWords are the kinds in the order people read them.
var sourceWords = []string{"header", "cookie", "query", "jwt", "user_agent", "value", "sticky"}

// maxAttribute bounds a value that a client sent: longer ones are missing.
const maxAttribute = 4096

// read fills the context from the request.
func (h *Handler) read(rq *request, r *http.Request, claims []evaluator.Value) {
	set := ""
	for k := range h.sources {
		s := &h.sources[k]
		if s.name == set {
			continue // an earlier source gave this attribute
		}
		var v evaluator.Value
		switch s.kind {
		case fromHeader:
			if values := r.Header[s.key]; len(values) > 0 {
				v = evaluator.String(bounded(strings.TrimSpace(values[0])))
			}
		case fromCookie:
			v = evaluator.String(bounded(cookieValue(r, s.key)))
		case fromQuery:
			if r.URL.RawQuery != "" {
				v = evaluator.String(bounded(r.URL.Query().Get(s.key)))
			}
		case fromJWT:
			if s.claim < len(claims) {
				v = claims[s.claim]
			}
		case fromUserAgent:
			v = evaluator.String(deviceOf(r.Header.Get("User-Agent")))
		case fromValue:
			if rq.repl != nil {
				v = evaluator.String(bounded(rq.repl.ReplaceAll(s.key, "")))
			}
		case fromSticky:
			id, setCookie := stickyID(r, isSecure(r))
			rq.cookie = setCookie
			rq.sticky = true
			v = evaluator.String(id)
			if setCookie != "" && h.Propagate != nil { // the next hop is to see the same person
				line := stickyCookie + "=" + id
				if lines := r.Header["Cookie"]; len(lines) > 0 {
					line += "; " + strings.Join(lines, "; ") // the first one counts
				}
				r.Header["Cookie"] = []string{line}
			}
		}
		if !v.IsMissing() {
			rq.ctx.SetAttribute(s.attribute, v)
			set = s.name
		}
	}
}

// readSticky fills the context of a site that has no feature_flags block.
func (rq *request) readSticky(r *http.Request, mayset bool) {
	rq.sticky = true
	if id := readSticky(r); id != "" || !mayset {
		rq.ctx.Set(evaluator.UserID, evaluator.String(id))
		return
	}
	id, setCookie := stickyID(r, isSecure(r))
	rq.cookie = setCookie
	rq.ctx.Set(evaluator.UserID, evaluator.String(id))
}

func bounded(s string) string {
	if len(s) > maxAttribute {
		return ""
	}
	return s
}

// claimsOf verifies the request's token, if it has one.
func (h *Handler) claimsOf(r *http.Request, now time.Time) ([]evaluator.Value, error) {
	if h.JWT == nil {
		return nil, nil
	}
	return h.JWT.claims(r, now)
}
