package sources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestHTTPWatchDownAndBack: an error is told once, another one too, and the end of it.
func TestHTTPWatchDownAndBack(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		p.watch()
		p.told("one")
		p.down.Store(true)
		p.pass(time.Hour)
		p.told() // It has a connection, by which it goes on asking.
		p.say(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
		p.pass(time.Hour)
		p.told("error: connecting: connection refused")
		n := 0
		p.say(func(w http.ResponseWriter, r *http.Request) {
			n++
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "request ", n)
		})
		p.down.Store(false)
		p.pass(time.Hour)
		p.told(`error: answered 502 Bad Gateway, saying "request 1"`) // Whatever else it says.
		p.count()
		p.sayVersion("one")
		p.pass(91 * time.Second)
		p.told("one")
		p.count()
		p.pass(time.Hour)
		if n := p.count(); n < 108 || n > 134 {
			p.Errorf("asked %d times in an hour, when all is well", n)
		}
		p.told()
	})
}

// TestHTTPWatchRetries looks at the times of the questions that fail.
func TestHTTPWatchRetries(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.say(http.NotFound)
		if _, err := p.Load(p.Context()); err == nil {
			p.Fatal("no error")
		}
		p.watch()
		p.pass(20 * time.Minute)
		p.told() // Load told it.
		asked := p.questions()
		for i, want := 1, time.Second; i < len(asked); i, want = i+1, min(2*want, time.Minute) {
			if got := asked[i].at.Sub(asked[i-1].at); got < want/2 || got > want*3/2+time.Millisecond {
				p.Errorf("retry %d after %v, want about %v", i, got, want)
			}
		}
		if n := p.count(); n < 18 {
			p.Errorf("asked %d times in 20 minutes", n)
		}
	})
}

func TestHTTPWatchRetryAfter(t *testing.T) {
	for _, c := range []struct {
		name        string
		status      int
		text        func() string
		least, most time.Duration
	}{
		{"seconds", 429, func() string { return "300" }, 300 * time.Second, 330 * time.Second},
		{"date", 503, func() string { return time.Now().Add(300 * time.Second).UTC().Format(http.TimeFormat) }, 299 * time.Second, 330 * time.Second},
		{"for ever", 503, func() string { return "31536000" }, 10 * time.Minute, 10 * time.Minute},
		{"of another status", 500, func() string { return "300" }, 0, 90 * time.Second},
		{"nonsense", 429, func() string { return "a while" }, 0, 90 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inPortal(t, func(p *portal) {
				p.say(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", c.text())
					w.WriteHeader(c.status)
				})
				p.watch()
				p.pass(time.Hour)
				asked := p.questions()
				for i := 1; i < len(asked); i++ {
					if got := asked[i].at.Sub(asked[i-1].at); got < c.least || got > c.most+time.Millisecond {
						p.Errorf("asked again after %v, want %v to %v", got, c.least, c.most)
					}
				}
				if len(p.told(fmt.Sprintf("error: answered %d %s", c.status, http.StatusText(c.status)))) != 1 || p.count() < 6 {
					p.Error("asked too seldom")
				}
				p.sayVersion("one")
				p.pass(11 * time.Minute)
				p.told("one")
				p.count()
				p.pass(5 * time.Minute) // Its usual pace again.
				if n := p.count(); n < 9 || n > 12 {
					p.Errorf("asked %d times in 5 minutes", n)
				}
			})
		})
	}
}

// TestHTTPWatchOfABadAddress tells it once.
func TestHTTPWatchOfABadAddress(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.URL = "ftp://flags.example"
		p.watch()
		p.pass(time.Hour)
		p.told(`error: http "…": the URL has the wrong scheme, want http or https`)
	})
}

// TestHTTPWatchEndsAtOnce cancels while the server hangs, in each way, and while nothing is under way.
func TestHTTPWatchEndsAtOnce(t *testing.T) {
	hang := func(begin string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if begin != "" {
				w.Header().Set("Content-Length", "10")
				io.WriteString(w, begin)
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"headers": hang(""), "body": hang("abc"), "poll": say("abc"), "retry": http.NotFound,
	} {
		t.Run(name, func(t *testing.T) {
			inPortal(t, func(p *portal) {
				p.say(answer)
				p.watch()
				p.stop()
				switch name {
				case "headers", "body":
					p.told()
				case "poll":
					p.told("abc")
				}
				p.sayVersion("one")
				p.watch()
				p.pass(time.Minute)
				p.mu.Lock()
				if last := p.events[len(p.events)-1]; last.text() != "one" {
					p.Errorf("a later watch told %q", last.text())
				}
				p.mu.Unlock()
			})
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		inPortal(t, func(p *portal) {
			p.say(say("abc"))
			p.roundTripper().(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			p.watch()
			p.pass(9 * time.Second)
			p.told()
			p.pass(2 * time.Second)
			p.told("error: did not answer within 10s")
			p.stop()
		})
	})
	t.Run("done before", func(t *testing.T) {
		inPortal(t, func(p *portal) {
			p.say(say("abc"))
			ctx, cancel := context.WithCancel(p.Context())
			cancel()
			p.Watch(ctx, func(Document, error) { p.Error("told") })
			if p.count() != 0 {
				p.Error("asked")
			}
		})
	})
}

// TestHTTPWatchEndsWhileFetching: what was fetched when the context ended is told by a later Watch.
func TestHTTPWatchEndsWhileFetching(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		p.load("one")
		ctx, cancel := context.WithCancel(p.Context())
		p.say(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"two"`)
			io.WriteString(w, "two")
		})
		next := p.transport
		p.transport = transport(func(r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil {
				resp.Body = &onEnd{resp.Body, cancel}
			}
			return resp, err
		})
		p.Watch(ctx, func(Document, error) { p.Error("told after the end") })
		p.transport = next
		p.closeIdle()
		p.sayVersion("two")
		p.pass(time.Hour)
		p.watch()
		p.told("two")
	})
}

// onEnd calls end when the body has been read.
type onEnd struct {
	io.ReadCloser
	end func()
}

func (o *onEnd) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	if err == io.EOF {
		o.end()
	}
	return n, err
}

// TestHTTPWatchOnLoopback is the whole thing in real time: versions, a server that goes and comes back, the end.
func TestHTTPWatchOnLoopback(t *testing.T) {
	t.Parallel()
	// A port that the system gives to nobody while the server is gone.
	var l net.Listener
	err := errors.New("not tried")
	for port := 10000 + os.Getpid()%10000; err != nil && port < 30000; port++ {
		l, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	}
	must(t, err)
	address := l.Addr().String()
	start := func(l net.Listener, text string) *http.Server {
		s := &http.Server{Handler: say(text)}
		go s.Serve(l)
		return s
	}
	s := start(l, "one")
	h := &HTTP{URL: "http://" + address, Poll: MinHTTPPoll}
	wantBody(t, h, "one")
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan event, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Watch(ctx, func(d Document, err error) { events <- event{d, err, time.Now()} })
	}()
	next := func(want string) {
		t.Helper()
		select {
		case e := <-events:
			if e.text() != want {
				t.Fatalf("told %q, want %q", e.text(), want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("told nothing, want %q", want)
		}
	}
	s.Close()
	next(fmt.Sprintf("error: http %q: connecting: connection refused", h.URL))
	l, err = net.Listen("tcp", address)
	must(t, err)
	s = start(l, "two")
	next("two")
	cancel()
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Error("the watch has not ended")
	}
	s.Close()
}
