package caddymodule

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Addresses of streams are signed: EventSource sends no Authorization header, and
// not everybody who finds the path is to hold a connection open. They say nothing
// about the client, since the stream does not either.
const (
	ofrepPurpose = "ofrep"
	// streamTurn is how long one address is told; it opens streams for one or two
	// turns. Clients open their stream anew when its address changes.
	streamTurn = 15 * time.Minute
	// betweenNews is the least time between two events of a stream: a ramp moves
	// more often than clients need to ask.
	betweenNews = time.Second
	// freshAnswer is how old the answer may be that told a client of its stream.
	freshAnswer = time.Minute
)

// streamSigner returns who signs, nil while there is no key.
func (o *OFREP) streamSigner() *signer {
	if o.signer != nil {
		return o.signer
	}
	return o.app.streamKey.signer.Load()
}

// address is where the client finds its stream; "" where none is offered. It stays
// the same for a turn.
func (o *OFREP) address(r *http.Request, now time.Time) string {
	s := o.streamSigner()
	if s == nil || o.Streams < 0 {
		return ""
	}
	a := streamAddress{s, now.Truncate(streamTurn).Add(2 * streamTurn).Unix(), hostOf(r.Host), strippedPrefix(r), ""}
	if last := o.addressed.Load(); last != nil {
		if a.text = last.text; a == *last {
			return a.text
		}
	}
	u := url.URL{Path: a.prefix + ofrepEvents, RawQuery: "token=" + s.signUntil(time.Unix(a.end, 0), a.host)}
	a.text = u.RequestURI()
	o.addressed.Store(&a)
	return a.text
}

// streamAddress is an address, and what it is made of: most clients get the same one.
type streamAddress struct {
	by           *signer
	end          int64 // s since 1970
	host, prefix string
	text         string
}

// strippedPrefix is what handle_path and their like have taken off the path.
func strippedPrefix(r *http.Request) string {
	if prefix, ok := strings.CutSuffix(originalURL(r).Path, r.URL.Path); ok && strings.HasPrefix(prefix, "/") && !strings.HasPrefix(prefix, "//") {
		return prefix
	}
	return ""
}

// mayStream tells whether a token opens a stream on the host.
func mayStream(s *signer, token, host string, now time.Time) bool {
	if s == nil {
		return false
	}
	until, ok := s.verifyUntil(token, host)
	return ok && now.Before(until) && now.Add(2*streamTurn+clockSkew).After(until)
}

// streamCount bounds the streams of a site.
type streamCount struct {
	mu   sync.Mutex
	all  int
	open map[netip.Addr]int
}

// enter returns false where there are too many.
func (c *streamCount) enter(client netip.Addr, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.roomFor(client, most) {
		return false
	}
	c.all++
	c.open[client]++
	ofrepStreams.Inc()
	return true
}

func (c *streamCount) roomFor(client netip.Addr, most int) bool {
	return c.all < most && c.open[client] < max(1, most/10)
}

// hasRoom tells whether enter would succeed.
func (c *streamCount) hasRoom(client netip.Addr, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roomFor(client, most)
}

func (c *streamCount) leave(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.open[client]--; c.open[client] == 0 {
		delete(c.open, client)
	}
	ofrepStreams.Dec()
}

// refetch is the event that has a client ask again.
type refetch struct {
	Type string `json:"type"`
	ETag string `json:"etag"` // of definitions and state; not that of any answer
}

// serveStream tells the client when to ask again, until it leaves or the config
// ends. A client that was away says by Last-Event-ID what it has seen.
func (o *OFREP) serveStream(w http.ResponseWriter, r *http.Request) error {
	if !onlyMethod(w, r, http.MethodGet) {
		return nil
	}
	if o.Streams < 0 {
		return o.serveNothing(w, r)
	}
	if !mayStream(o.streamSigner(), r.URL.Query().Get("token"), hostOf(r.Host), time.Now()) {
		return writeOFREP(w, http.StatusUnauthorized, ofrepTrouble{"the stream's address has ended: ask for the flags again, which tells the new one"})
	}
	client := clientOf(r)
	if !o.streams.enter(client, o.Streams) {
		retryAfter(w.Header(), 30*time.Second)
		return writeOFREP(w, http.StatusTooManyRequests, ofrepTrouble{"too many event streams are open"})
	}
	defer o.streams.leave(client)
	w.Header().Set("X-Accel-Buffering", "no")
	ctx, done := whileAll(r.Context(), o.app.running, o.ending)
	defer done()
	newEventWriter(w).refetches(ctx, o.app, r.Header.Get("Last-Event-ID"))
	return nil
}

// refetches sends an event for each change of what clients may see. seen is the
// last one that the client has had; "" when it comes for the first time, with
// answers that it got a moment ago. It ends with ctx: another config serves the next
// one.
func (e *eventWriter) refetches(ctx context.Context, a *App, seen string) {
	swapped := *a.swapped.Load()
	flags := a.clientFlags(a.rules.Load(), time.Now())
	// Whoever comes for the first time has got its answers a moment ago: what has
	// changed in between is told, too.
	if seen == "" && time.Since(flags.since) > freshAnswer {
		seen = flags.revision
	}
	if seen != "" && !e.send("id: %s\n", seen) || !e.send(": watching\n\n") {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var last time.Time // when an event was sent
	var again <-chan time.Time
	program := a.program.Load()
	for {
		now := time.Now()
		var soon, date <-chan time.Time
		switch wait := betweenNews - now.Sub(last); {
		case flags.revision == seen:
		case wait > 0:
			soon = time.After(wait)
		default:
			text, _ := json.Marshal(refetch{"refetchEvaluation", flags.revision})
			if !e.send("event: message\nid: %s\ndata: %s\n\n", flags.revision, text) {
				return
			}
			seen, last = flags.revision, now
			// Other instances read changed definitions later, and one of them may have answered.
			if p := a.program.Load(); p != program {
				program, again = p, time.After(a.slowestPoll())
			}
		}
		if !flags.until.IsZero() {
			date = time.After(flags.until.Sub(now))
		}
		select {
		case <-ctx.Done():
			e.part()
			return
		case <-beat.C:
			if !e.stillHere() {
				return
			}
		case <-swapped:
		case <-soon:
		case <-date:
		case <-again:
			seen, again = "", nil
		}
		swapped = *a.swapped.Load() // before the rules: a change in between wakes again
		flags = a.clientFlags(a.rules.Load(), time.Now())
	}
}

// part has the client come back in a moment, not all at once.
func (e *eventWriter) part() { e.send("retry: %d\n\n", 500+rand.N(1500)) }
