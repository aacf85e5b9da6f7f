package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

func init() { caddy.RegisterModule((*Feedback)(nil)) }

// Feedback takes what people say about a flag: `POST {"flag", "rating", "comment"}`,
// as JSON or as a form. The rating is a number from 1 to 5, or up or down. The variant
// that the person is served is added here. Of one person's words on a flag the last
// one counts; who has no targeting key is told apart by the client's address.
//
// It is kept on disk for 90 days, the newest in about 4 MB, without anything that says
// who it was: what tells people apart is a keyed hash for each flag.
type Feedback struct {
	// Path that is answered. Default: each that ends in /feedback; with a matcher
	// in the Caddyfile, all that it lets through.
	Path string `json:"path,omitempty"`

	// CORS lists the origins whose pages may post from elsewhere. Default: only the
	// site's own.
	CORS origins `json:"cors,omitempty"`

	// RateLimit is for each client address. Default: 10 in a minute; 0 requests:
	// none.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// MaxComment is the longest comment in characters. Default: 1000, at most 4000.
	MaxComment int `json:"max_comment,omitempty"`

	// Thanks is the address that a browser is sent to which has posted a form.
	// Default: none, it gets a line of text.
	Thanks string `json:"thanks,omitempty"`

	app     *App
	limiter *limiter
}

const (
	defaultComment   = 1000
	mostComment      = 4000
	feedbackPath     = "/feedback"
	feedbackPurpose  = "feedback"
	anyPath          = "*"
	mostFeedbackBody = 64 << 10
)

// CaddyModule returns the module's information.
func (*Feedback) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.feature_flags_feedback", New: func() caddy.Module { return new(Feedback) }}
}

// Provision checks the options.
func (f *Feedback) Provision(ctx caddy.Context) (err error) {
	if f.app, err = appOf(ctx); err != nil {
		return err
	}
	if err := f.CORS.check(); err != nil {
		return err
	}
	if f.RateLimit == nil {
		f.RateLimit = &RateLimit{Requests: 10, Window: caddy.Duration(time.Minute)}
	}
	if f.limiter, err = newLimiter(f.RateLimit); err != nil {
		return err
	}
	f.MaxComment = cmp.Or(f.MaxComment, defaultComment)
	if f.MaxComment < 0 || f.MaxComment > mostComment {
		return errors.New("max_comment: want a number from 1 to 4000")
	}
	f.app.voters.use(ctx, feedbackPurpose)
	return nil
}

// takes tells whether a path is answered.
func (f *Feedback) takes(path string) bool {
	switch f.Path {
	case anyPath:
		return true
	case "":
		return strings.HasSuffix(path, feedbackPath)
	}
	return path == f.Path
}

// ServeHTTP answers POST and passes everything else on.
func (f *Feedback) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Method != http.MethodPost && (r.Method != http.MethodOptions || len(f.CORS) == 0) {
		return next.ServeHTTP(w, r)
	}
	if !f.takes(r.URL.Path) {
		if f.takes(originalURL(r).Path) {
			f.app.quiet.warn(time.Now(), "feedback-path", "a feedback request's path was rewritten before feature_flags_feedback, which passes it on: put feature_flags_feedback into a `handle`, and try_files and the like into another")
		}
		return next.ServeHTTP(w, r)
	}
	takeOver(w, r)
	f.CORS.allow(w.Header(), r, "POST, OPTIONS")
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", "POST, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if wait := f.limiter.wait(clientOf(r), time.Now()); wait > 0 {
		retryAfter(w.Header(), wait)
		return refuse(w, http.StatusTooManyRequests, "too much feedback of one client address")
	}
	if f.CORS.isForeign(r) {
		return refuse(w, http.StatusForbidden, "this page's origin is not among those that may post feedback (cors)")
	}
	return f.take(w, r)
}

// refuse says what is wrong.
func refuse(w http.ResponseWriter, status int, words string) error {
	text, _ := json.Marshal(map[string]string{"error": words}) // a map of strings: it does not fail
	return writeJSON(w, status, append(text, '\n'))
}

// opinion is what is posted.
type opinion struct {
	Flag    string         `json:"flag"`
	Rating  any            `json:"rating"`
	Comment string         `json:"comment"`
	Context map[string]any `json:"context"` // as OpenFeature's clients tell it
}

// take keeps what was posted.
func (f *Feedback) take(w http.ResponseWriter, r *http.Request) error {
	said, isForm, status, words := f.read(w, r)
	if words != "" {
		return refuse(w, status, words)
	}
	claims := false
	rq, known := ownRequest(f.app, w, r, func(c *evaluator.Context) { claims = fillIn(c, said.Context, nil) })
	defer rq.release()
	i := rq.rules.Index(said.Flag)
	if i < 0 {
		return refuse(w, http.StatusNotFound, "flag: there is no such flag")
	}
	d := rq.eval.Decide(i)
	// Who only says who it is counts as its address, else one could speak for many, and is
	// compared with nobody if that has decided the variant. A page of elsewhere that is
	// not listed speaks with the cookies of somebody who may not know.
	known = cmp.Or(known, rq.trustedUser)
	foreign := origins(nil).isForeign(r) && !slices.Contains(f.CORS, r.Header.Get("Origin"))
	voter := "address " + clientOf(r).String()
	if known != "" && !rq.sticky && !foreign {
		voter = "user " + known
	}
	compared := known != "" && !claims && !foreign && rq.tester == "" && rq.compared(i, d)
	kept, written := rq.app.engine.store.AddFeedback(rq.arrival, state.Feedback{
		Flag: d.Flag, Variant: d.Variant, Canary: d.Enabled, Split: compared,
		Rating: said.Rating.(string), Comment: said.Comment, Voter: f.app.pseudonym(d.Flag, voter),
	})
	rq.app.engine.opinionsChanged(d.Flag)
	durable := waitFor(time.Now().Add(patienceWithDisk), written) == nil && rq.app.dir != ""
	feedbackTaken.WithLabelValues(d.Flag, d.Variant, kept.Rating).Inc()
	switch {
	case isForm && f.Thanks != "":
		http.Redirect(w, r, f.Thanks, http.StatusSeeOther)
		return nil
	case isForm:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, "Thank you.\n") // it fails when the client has gone
		return nil
	}
	text, _ := json.Marshal(map[string]bool{"durable": durable})
	return writeJSON(w, http.StatusAccepted, append(text, '\n'))
}

// read reads what was posted; words say what is wrong with it.
func (f *Feedback) read(w http.ResponseWriter, r *http.Request) (said opinion, isForm bool, status int, words string) {
	r.Body = http.MaxBytesReader(w, r.Body, mostFeedbackBody)
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var err error
	switch kind {
	case "application/x-www-form-urlencoded", "multipart/form-data":
		isForm = true
		said, err = readForm(r, kind)
	case "application/json", "":
		if err = readObject(r.Body, &said); errors.Is(err, io.EOF) {
			err = errors.New(`the body is empty, want {"flag": "…", "rating": 5, "comment": "…"}`)
		}
	default:
		return said, false, http.StatusUnsupportedMediaType, "want application/json or a form, got " + clipped(kind)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return said, isForm, http.StatusRequestEntityTooLarge, "the body has more than 65536 bytes"
	case err != nil:
		return said, isForm, http.StatusBadRequest, err.Error()
	}
	switch rating := said.Rating.(type) {
	case json.Number:
		said.Rating = rating.String()
		if n, err := rating.Float64(); err == nil && n == math.Trunc(n) && math.Abs(n) < 10 { // 5.0 is what languages without whole numbers write
			said.Rating = strconv.Itoa(int(n))
		}
	case string:
	default:
		said.Rating = ""
	}
	said.Comment = cleanComment(said.Comment)
	switch {
	case said.Flag == "":
		return said, isForm, http.StatusBadRequest, "flag: want the name of a flag"
	case !monitors.IsRating(said.Rating.(string)):
		return said, isForm, http.StatusBadRequest, "rating: want a number from 1 to 5, or up or down"
	case utf8.RuneCountInString(said.Comment) > f.MaxComment:
		return said, isForm, http.StatusBadRequest, "comment: is too long"
	}
	if err := checkPosted(said.Context); err != nil {
		return said, isForm, http.StatusBadRequest, err.Error()
	}
	return said, isForm, 0, ""
}

// readForm reads a form's fields; each may be given once.
func readForm(r *http.Request, kind string) (said opinion, err error) {
	var values url.Values
	if kind == "multipart/form-data" {
		if err := r.ParseMultipartForm(mostFeedbackBody); err != nil {
			return said, formError(err)
		}
		defer func() { _ = r.MultipartForm.RemoveAll() }()
		if len(r.MultipartForm.File) > 0 {
			return said, errors.New("files are not taken")
		}
		values = r.MultipartForm.Value
	} else {
		if err := r.ParseForm(); err != nil {
			return said, formError(err)
		}
		values = r.PostForm
	}
	for name, given := range values {
		if len(given) > 1 {
			return said, errors.New("the form has a field twice")
		}
		switch name {
		case "flag":
			said.Flag = given[0]
		case "rating":
			said.Rating = given[0]
		case "comment":
			said.Comment = given[0]
		default:
			return said, errors.New("the form has an unknown field; there are flag, rating and comment")
		}
	}
	return said, nil
}

func formError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return errors.New("the form cannot be read")
}

// cleanComment leaves out what no terminal and no page is to see, and white space
// around it.
func cleanComment(text string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c == '\n', c == '\t', !unicode.IsControl(c) && !unicode.Is(unicode.Bidi_Control, c):
			return c
		case c == '\r':
			return -1
		}
		return ' '
	}, strings.ToValidUTF8(text, "\uFFFD")))
}

func clipped(text string) string {
	if len(text) > 100 {
		return text[:100] + "…"
	}
	return text
}

// pseudonym stands for a person and a flag; "" while there is no key.
func (a *App) pseudonym(flag, person string) string {
	if s := a.voters.signer.Load(); s != nil {
		return s.pseudonym(flag + "\x00" + person)
	}
	return ""
}

// UnmarshalCaddyfile is in caddyfile_feedback.go.
var (
	_ caddy.Provisioner           = (*Feedback)(nil)
	_ caddyhttp.MiddlewareHandler = (*Feedback)(nil)
	_ caddyfile.Unmarshaler       = (*Feedback)(nil)
)
