package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv names what the test binary does instead of testing when a test starts it again.
const childEnv = "WEBHOOK_TEST_CHILD"

var children = map[string]func(args []string){}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name](os.Args[1:])
		return
	}
	goleak.VerifyTestMain(m)
}

// heard is a request that a receiver got.
type heard struct {
	id     string
	header http.Header
	body   string
	path   string
}

// receiver is a peer that keeps what it gets; answer, when set, decides what it says.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	heard  []heard
	answer func(n int, h heard) (status int, header http.Header, body string)
}

func listen(t testing.TB, answer func(n int, h heard) (int, http.Header, string)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		h := heard{req.Header.Get(idHeader), req.Header, string(body), req.URL.RequestURI()}
		r.mu.Lock()
		r.heard = append(r.heard, h)
		n, answer := len(r.heard), r.answer
		r.mu.Unlock()
		if answer == nil {
			return
		}
		status, header, text := answer(n, h)
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	t.Cleanup(r.Close)
	return r
}

func status(code int) func(int, heard) (int, http.Header, string) {
	return func(int, heard) (int, http.Header, string) { return code, nil, "" }
}

func (r *receiver) got() []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heard)
}

func (r *receiver) ids() (ids []string) {
	for _, h := range r.got() {
		ids = append(ids, h.id)
	}
	return ids
}

// reports collects what is told.
type reports struct {
	mu  sync.Mutex
	all []Report
	at  []time.Time
}

func (r *reports) told(report Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, report)
	r.at = append(r.at, time.Now())
}

func (r *reports) get() []Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// texts are all errors told.
func (r *reports) texts() string {
	var b strings.Builder
	for _, report := range r.get() {
		fmt.Fprintf(&b, "%s %v\n", report.Target, report.Err)
	}
	return b.String()
}

// open is Open for a test, which closes it.
func open(t testing.TB, path string, o Options, targets ...Target) *Sender {
	t.Helper()
	s := Open(path, o)
	t.Cleanup(func() { s.Close() })
	configure(t, s, targets...)
	return s
}

func configure(t testing.TB, s *Sender, targets ...Target) {
	t.Helper()
	if err := s.Configure(targets); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, s *Sender) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func drain(t testing.TB, s *Sender) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what other goroutines do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

func wantIDs(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// queueFile is a path for a queue.
func queueFile(t testing.TB) string {
	return filepath.Join(t.TempDir(), "webhooks.db")
}

// inFile are the ids of the records in a queue file, in order.
func inFile(t testing.TB, path string) (ids []string) {
	t.Helper()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	found, err := checkFile(path, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		ids = append(ids, f.item.id)
	}
	return ids
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// peer is a transport without a network, for tests with a false clock.
type peer struct {
	mu     sync.Mutex
	times  []time.Time
	heard  []string // Ids.
	answer func(n int, r *http.Request) (*http.Response, error)
}

func (p *peer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	p.mu.Lock()
	p.times = append(p.times, time.Now())
	p.heard = append(p.heard, r.Header.Get(idHeader))
	n := len(p.heard)
	p.mu.Unlock()
	return p.answer(n, r)
}

func (p *peer) got() ([]string, []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.heard), slices.Clone(p.times)
}

func reply(code int, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

var errRefused = errors.New("connection refused")

// far is a target whose transport is a peer.
func far(name string) Target {
	return Target{Name: name, URL: "http://" + cmp.Or(name, "far") + ".invalid/hook"}
}
