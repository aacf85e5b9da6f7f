package sources

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"
)

const (
	// DefaultHTTPPoll is how often an [HTTP] asks, MinHTTPPoll how often at most.
	DefaultHTTPPoll = 30 * time.Second
	MinHTTPPoll     = time.Second
	// DefaultHTTPTimeout is how long a fetch of an [HTTP] may take.
	DefaultHTTPTimeout = 10 * time.Second
)

// HTTP is a source behind a URL, asked again and again. Only 200 with a body is a version, and 304 says that the last
// one still is; whatever else comes is an error, and so is a body that is empty or blank, a web page (a captive portal, a
// login), in an encoding other than gzip, larger than MaxSize when unpacked, or not certainly whole: of YAML in HTTP/1 that
// neither has a length, nor comes in chunks, nor is packed, nobody can tell.
//
// Load asks without a condition. Watch names the version that it has by ETag and Last-Modified, unless the latter was
// too young when told to tell two versions apart. As a date does not tell a version that was put back either, every 20th
// question that has nothing better is without a condition.
//
// Watch asks each Poll give or take 10 %, so that many do not ask in step. After an error it asks again after 1 s, then
// after twice as long each time, up to a minute, each give or take half of it. A Retry-After
// of 429 and 503 is heeded up to 10 minutes.
//
// Up to five redirects are followed, none from https to http. What Header and the userinfo of URL say goes to the origin
// of URL only: scheme, host and port. Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY),
// certificates are checked by the roots of the system, cookies are not kept. Errors hold neither the userinfo nor the
// query of URL, nothing of Header, and of other addresses scheme and host only.
//
// The fields are not to be changed, and the HTTP not to be copied, after first use.
type HTTP struct {
	// URL is where the definitions are: http or https, without fragment. It may hold userinfo, sent as basic
	// authentication unless Header has an Authorization, and a query; both are taken for secrets.
	URL string
	// Poll is the time between two questions. 0 or less: DefaultHTTPPoll. Below MinHTTPPoll: MinHTTPPoll.
	Poll time.Duration
	// Header is sent along, Host in place of the host of URL. Check tells which lines cannot be.
	Header http.Header
	// Timeout is for a whole fetch, with redirects and the body. 0 or less: DefaultHTTPTimeout.
	Timeout time.Duration
	// MaxSize is the largest size of the unpacked body in bytes. 0 or less: DefaultMaxSize.
	MaxSize int64

	transport http.RoundTripper // Tests put their own; else made at the first fetch.

	mu       sync.Mutex
	turn     chan struct{} // Full while somebody fetches. Two at a time could bring an older version after a newer one.
	watching int
	last     version // Of the last 200.
	told     string  // The revision of what was last handed out.
	failure  string  // The kind of the fault handed out since then; empty for none.
	loaded   time.Time
	fault    *fault // What became of the Load that ended at loaded.
}

var _ Source = (*HTTP)(nil)

// Name is the URL without its secrets: scheme, host and path, and ?… in place of a query; … for a URL that cannot be
// parsed.
func (h *HTTP) Name() string {
	u, err := parseAddress(h.URL)
	if err != nil {
		return "…"
	}
	return publicAddress(u)
}

// Check returns why no fetch can ever go well: what is wrong with URL or Header.
func (h *HTTP) Check() error {
	return h.check().error(h.Name())
}

// Load fetches the present version. While another fetch is under way it waits for its end. Without a Watch it leaves no
// connection open.
func (h *HTTP) Load(ctx context.Context) (Document, error) {
	defer h.closeIdle()
	doc, f := h.ask(ctx, false)
	if f != nil && f.cause != nil {
		return doc, f.error(doc.Name)
	}
	h.had(doc, f)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded, h.fault = time.Now(), f
	return doc, f.error(doc.Name)
}

// Watch asks at once, or when the last Load is as old as Poll says, and then each Poll, until ctx is done.
func (h *HTTP) Watch(ctx context.Context, changed func(Document, error)) {
	h.mu.Lock()
	h.watching++
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.watching--
		h.mu.Unlock()
		h.closeIdle()
	}()
	p := newPace(h.Poll)
	for wait := h.untilFirst(p); sleep(ctx, wait) == nil; {
		doc, f := h.ask(ctx, true)
		if ctx.Err() != nil {
			return
		}
		if h.isNews(doc, f) {
			changed(doc, f.error(doc.Name))
			// Afterwards: a Load that ended meanwhile may have had a newer version, which is then told again
			// rather than never.
			h.had(doc, f)
		}
		wait = p.next(f)
	}
}

// untilFirst is how long Watch waits before it asks for the first time.
func (h *HTTP) untilFirst(p *pace) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	age := time.Since(h.loaded)
	if h.loaded.IsZero() || age >= p.poll {
		return 0
	}
	return max(p.next(h.fault)-age, 0)
}

// isNews tells whether that is anything else than what was handed out before.
func (h *HTTP) isNews(doc Document, f *fault) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f != nil {
		return h.failure != f.kind
	}
	return h.failure != "" || h.told != doc.Revision
}

// had keeps what was handed out.
func (h *HTTP) had(doc Document, f *fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f != nil {
		h.failure = f.kind
		return
	}
	h.failure, h.told = "", doc.Revision
}

// ask fetches, when it is its turn. With a fault the document has its name only.
func (h *HTTP) ask(ctx context.Context, conditional bool) (Document, *fault) {
	none := Document{Name: h.Name()}
	h.mu.Lock()
	if h.turn == nil {
		h.turn = make(chan struct{}, 1)
	}
	turn := h.turn
	h.mu.Unlock()
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return none, &fault{cause: ctx.Err()}
	}
	if ctx.Err() != nil {
		return none, &fault{cause: ctx.Err()}
	}

	var known version
	if conditional {
		h.mu.Lock()
		h.last.asked++
		known = h.last
		h.mu.Unlock()
	}
	a, f := h.fetch(ctx, known)
	switch {
	case f != nil && ctx.Err() != nil:
		return none, &fault{cause: ctx.Err()}
	case f != nil:
		return none, f
	}
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.unchanged {
		h.last.doc.ReadAt = now
	} else {
		h.last = a.version
		h.last.doc = newDocument(none.Name, a.body, now)
	}
	doc := h.last.doc
	doc.Body = bytes.Clone(doc.Body) // The caller's own.
	return doc, nil
}

// closeIdle closes connections that nobody is going to use.
func (h *HTTP) closeIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.transport.(interface{ CloseIdleConnections() }); ok && h.watching == 0 {
		t.CloseIdleConnections()
	}
}
