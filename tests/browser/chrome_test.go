package browser

import (
	"context"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// chrome is the browser of all tests; each has tabs of its own.
var chrome struct {
	once   sync.Once
	ctx    context.Context
	cancel []context.CancelFunc
	err    error
}

func openChrome() (context.Context, error) {
	chrome.once.Do(func() {
		path, err := exec.LookPath("chromium")
		if err != nil {
			chrome.err = err
			return
		}
		options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
			chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true))
		allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, stop := chromedp.NewContext(allocator)
		chrome.ctx, chrome.cancel = ctx, []context.CancelFunc{stop, end}
		chrome.err = chromedp.Do(ctx)
	})
	return chrome.ctx, chrome.err
}

func closeChrome() {
	for _, f := range chrome.cancel {
		f()
	}
}

// tab is a page in a browser with no past: cookies and storage are its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []*seenRequest
	byID     map[network.RequestID]*seenRequest
	console  []chromedp.ConsoleMessage
}

// seenRequest is a request that the page has made.
type seenRequest struct {
	method, url string
	header      network.Headers
	status      int64 // 0: not answered yet
}

// open makes a tab that ends with the test. What the page asks for is noted.
func open(t *testing.T) *tab {
	t.Helper()
	parent, err := openChrome()
	if err != nil {
		t.Fatalf("starting chromium, which `make browser` installs: %v", err)
	}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, byID: map[network.RequestID]*seenRequest{}}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	listen(b, network.RequestWillBeSent, func(e network.EventRequestWillBeSent) {
		r := b.request(e.RequestID)
		r.method, r.url, r.header = e.Request.Method, e.Request.URL, e.Request.Headers
		b.requests = append(b.requests, r)
	})
	listen(b, network.ResponseReceived, func(e network.EventResponseReceived) { b.request(e.RequestID).status = e.Response.Status })
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.console = append(b.console, m)
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, m := range b.console {
				t.Logf("the page's console: %v", m)
			}
		}
	})
	return b
}

// request is the note on a request: its events come in no order. The caller must
// hold mu.
func (b *tab) request(id network.RequestID) *seenRequest {
	if b.byID[id] == nil {
		b.byID[id] = new(seenRequest)
	}
	return b.byID[id]
}

// listen notes events of a kind until the tab ends.
func listen[E any](b *tab, kind cdp.Event[E], note func(E)) {
	events := chromedp.Events(b.ctx, kind)
	go func() {
		for e, err := range events {
			if err != nil {
				return
			}
			b.mu.Lock()
			note(e)
			b.mu.Unlock()
		}
	}()
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what a script comes to, or its promise.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return out
}

// until waits until the script's value is the one wanted.
func (b *tab) until(limit time.Duration, script, want string) {
	b.t.Helper()
	got := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = eval[string](b, "String("+script+")"); got == want {
			return
		}
	}
	b.t.Fatalf("after %v %s is %q, want %q", limit, script, got, want)
}

// seen returns the requests so far whose address has the part.
func (b *tab) seen(part string) (out []seenRequest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.requests {
		if strings.Contains(r.url, part) {
			out = append(out, *r)
		}
	}
	return out
}

// hosts are those that the page has asked.
func (b *tab) hosts() (out []string) {
	for _, r := range b.seen("") {
		if u, err := url.Parse(r.url); err == nil && u.Host != "" && !slices.Contains(out, u.Host) {
			out = append(out, u.Host)
		}
	}
	return out
}
