package sources

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a network of one server, for a clock that does not run by itself.
type wire struct {
	conns chan net.Conn
	down  atomic.Bool
	cut   chan struct{}
	open  atomic.Int32 // Connections of clients.
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.cut:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error   { return nil }
func (w *wire) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if w.down.Load() {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", fmt.Errorf("connection refused"))}
	}
	here, there := net.Pipe()
	select {
	case w.conns <- there:
		w.open.Add(1)
		return &wireConn{Conn: here, wire: w}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type wireConn struct {
	net.Conn
	wire *wire
	once sync.Once
}

func (c *wireConn) Close() error {
	c.once.Do(func() { c.wire.open.Add(-1) })
	return c.Conn.Close()
}

// question is one that came to the server.
type question struct {
	*http.Request
	at time.Time
}

// portal is a real server, a real client and a watch on it, under a clock of their own.
type portal struct {
	*testing.T
	*wire
	*HTTP

	mu     sync.Mutex
	answer http.HandlerFunc
	asked  []question
	events []event
	cancel context.CancelFunc
	ended  chan struct{}
}

// inPortal runs a test in a bubble. The server says what say said last.
func inPortal(t *testing.T, test func(p *portal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{conns: make(chan net.Conn), cut: make(chan struct{})}
		p := &portal{T: t, wire: w, HTTP: &HTTP{URL: "http://flags.example/f.json"}}
		p.roundTripper().(*http.Transport).DialContext = w.dial
		p.roundTripper().(*http.Transport).Proxy = nil
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			p.asked = append(p.asked, question{r, time.Now()})
			answer := p.answer
			p.mu.Unlock()
			answer(w, r)
		})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			server.Serve(w)
		}()
		defer func() {
			p.stop()
			synctest.Wait()
			if n := w.open.Load(); n != 0 {
				t.Errorf("%d connections are open at the end", n)
			}
			close(w.cut)
			server.Close()
			<-done
		}()
		test(p)
	})
}

func (p *portal) say(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// sayVersion answers with a text and its own ETag, or 304.
func (p *portal) sayVersion(text string) {
	etag := fmt.Sprintf("%q", text)
	p.say(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, text)
	})
}

// watch begins to watch.
func (p *portal) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	p.cancel, p.ended = cancel, ended
	go func() {
		defer close(ended)
		p.Watch(ctx, func(d Document, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.events = append(p.events, event{d, err, time.Now()})
		})
	}()
	synctest.Wait()
}

// stop ends the watch and wants it to be over at once.
func (p *portal) stop() {
	if p.cancel == nil {
		return
	}
	begin := time.Now()
	p.cancel()
	<-p.ended
	p.cancel = nil
	if took := time.Since(begin); took > time.Second {
		p.Errorf("the watch ended after %v", took)
	}
}

// pass lets time go by.
func (p *portal) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// told wants exactly these events since the last call.
func (p *portal) told(want ...string) []event {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	events := p.events
	p.events = nil
	var got []string
	for _, e := range events {
		got = append(got, strings.ReplaceAll(e.text(), `http "http://flags.example/f.json": `, ""))
		if e.doc.Name != p.Name() || (e.err != nil && (e.doc.Body != nil || e.doc.Revision != "" || !e.doc.ReadAt.IsZero())) {
			p.Errorf("document %+v", e.doc)
		}
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		p.Fatalf("told %q, want %q", got, want)
	}
	return events
}

// questions returns those since the last call of count.
func (p *portal) questions() []question {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// latest returns the last question.
func (p *portal) latest() question {
	all := p.questions()
	return all[len(all)-1]
}

// count returns the number of questions since the last call.
func (p *portal) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.asked)
	p.asked = nil
	return n
}

func (p *portal) load(want string) Document {
	p.Helper()
	doc, err := p.Load(p.Context())
	if err != nil || string(doc.Body) != want {
		p.Fatalf("loaded %q, %v, want %q", doc.Body, err, want)
	}
	return doc
}
