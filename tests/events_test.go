package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

// told is what the stream says happened.
type happened struct {
	ID                      string `json:"-"`
	Event, Flag, By, Reason string
	At                      time.Time
	Data                    map[string]any
}

// stream reads the events until it ends; the channel is closed then.
func (c *instance) stream(seen string) <-chan happened {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.admin+"/feature_flags/events", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if seen != "" {
		req.Header.Set("Last-Event-ID", seen)
	}
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		c.t.Fatalf("the stream is %d %s", resp.StatusCode, got)
	}
	out, ready := make(chan happened, 1000), make(chan struct{})
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var h happened
		event := ""
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "":
				if value == "watching" {
					close(ready)
				}
				if h.Event != "" {
					if h.Event != event {
						h.Event += " under the name " + event
					}
					out <- h
				}
				h.Event = ""
			case "id":
				h.ID = value
			case "event":
				event = value
			case "data":
				id := h.ID
				h = happened{}
				if err := json.Unmarshal([]byte(value), &h); err != nil {
					h.Event = err.Error()
				}
				h.ID = id
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(5 * time.Second):
		c.t.Fatal("the stream does not begin")
	}
	return out
}

// next waits for the next event, which must be of the name.
func next(t *testing.T, events <-chan happened, name string) happened {
	t.Helper()
	select {
	case h, ok := <-events:
		if !ok {
			t.Fatalf("the stream ended before %s", name)
		}
		if h.Event != "feature_flags."+name {
			t.Fatalf("%+v, want %s", h, name)
		}
		if age := time.Since(h.At); age < 0 || age > time.Minute {
			t.Errorf("%s happened at %s", name, h.At)
		}
		return h
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s in the stream", name)
	}
	return happened{}
}

func nothing(t *testing.T, events <-chan happened) {
	t.Helper()
	select {
	case h, ok := <-events:
		t.Errorf("told once more: %+v %t", h, ok)
	case <-time.After(150 * time.Millisecond):
	}
}

func TestEventStream(t *testing.T) {
	c := start(t, canarySite, oneFlag, words(t))
	events, second := c.stream(""), c.stream("")
	fail := func(n int) {
		for range n {
			c.get("/?fail", "X-User-ID", "alice")
		}
	}
	fail(3)
	trip := next(t, events, "tripped")
	if evidence, _ := trip.Data["evidence"].(map[string]any); trip.Flag != "new_ui" || trip.By != "guard" || trip.Data["test"] != "errors" || trip.Data["durable"] != true ||
		trip.Data["id"] == "" || evidence["found"] != 3.0 || !strings.Contains(trip.Reason, "3 canary requests failed") {
		t.Errorf("tripped: %+v", trip)
	}
	next(t, second, "tripped")

	c.api("POST", "flags/new_ui/reset", `{"reason": "fixed", "by": "ops"}`, 200)
	if h := next(t, events, "reset"); h.Flag != "new_ui" || h.By != "ops" || h.Reason != "fixed" {
		t.Errorf("reset: %+v", h)
	}
	for call, override := range map[string]string{"disable": "disabled", "enable": "enabled"} {
		c.api("POST", "flags/new_ui/"+call, "", 200)
		if h := next(t, events, "overridden"); h.Flag != "new_ui" || h.By != "api" || h.Data["override"] != override {
			t.Errorf("%s: %+v", call, h)
		}
	}
	c.write("features.json", `{"new_ui": {"active": true}, "b": {"active": true}}`)
	if h := next(t, events, "reloaded"); h.Data["flags"] != 2.0 || h.Data["source"] != c.words["FEATURES"] {
		t.Errorf("reloaded: %+v", h)
	}
	c.write("features.json", `{"new_ui": {"aktive": true}}`)
	if h := next(t, events, "reload_failed"); !strings.Contains(h.Reason, `did you mean "active"?`) {
		t.Errorf("reload_failed: %+v", h)
	}
	nothing(t, events)
	if err := os.Remove(c.words["FEATURES"]); err != nil {
		t.Fatal(err)
	}
	next(t, events, "reload_failed")
	c.write("features.json", oneFlag)
	next(t, events, "reloaded")
	nothing(t, events)

	// A file in the place of the state's directory keeps everybody from writing.
	if err := os.RemoveAll(c.words["STATE"]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.words["STATE"], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	answer := c.api("POST", "flags/new_ui/disable", "", 200)
	if answer["status"] != "disabled" || !strings.Contains(fmt.Sprint(answer["warning"]), "not on disk") {
		t.Errorf("an order that cannot be written is answered %v", answer)
	}
	if h := next(t, events, "degraded"); !strings.Contains(h.Reason, "state cannot be written") || h.Data["degraded"] != true {
		t.Errorf("degraded: %+v", h)
	}
	next(t, events, "overridden")
	if err := os.Remove(c.words["STATE"]); err != nil {
		t.Fatal(err)
	}
	last := next(t, events, "recovered")

	// The stream ends with the config. Who comes back says what it has seen, and
	// is told the rest, once.
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	select {
	case h, ok := <-events:
		if ok {
			t.Errorf("told at a reload: %+v", h)
		}
	case <-time.After(2 * time.Second):
		t.Error("the stream does not end with the config")
	}
	c.api("POST", "flags/new_ui/enable", `{"reason": "missed"}`, 200)
	again := c.stream(last.ID)
	if h := next(t, again, "overridden"); h.Reason != "missed" {
		t.Errorf("what was missed: %+v", h)
	}
	c.api("POST", "flags/new_ui/disable", "", 200)
	next(t, again, "overridden")
	nothing(t, again)
	for _, seen := range []string{"nonsense", "-", "x-5", last.ID + "x"} { // ids of nobody
		fresh := c.stream(seen)
		nothing(t, fresh)
	}
}

// Watchers that do not read hold up neither a trip nor a reload.
func TestSlowWatchers(t *testing.T) {
	c := start(t, canarySite, oneFlag, words(t))
	for range 100 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.admin, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetReadBuffer(2048)
		fmt.Fprintf(conn, "GET /feature_flags/events HTTP/1.1\r\nHost: %s\r\n\r\n", conn.RemoteAddr())
	}
	reading := c.stream("")
	reason := `{"reason": "` + strings.Repeat("long ", 800) + `"}`
	const orders = 300
	for range orders {
		c.api("POST", "flags/new_ui/enable", reason, 200)
		next(t, reading, "overridden")
	}
	for range 3 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	before := time.Now()
	if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old") || time.Since(before) > time.Second {
		t.Errorf("the request after a trip took %s and got %q", time.Since(before), r.body)
	}
	next(t, reading, "tripped")
	before = time.Now()
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 3*time.Second {
		t.Errorf("a reload took %s", took)
	}
}

// eventRecorder is an event handler as somebody else might write one.
type eventRecorder struct {
	// Hang has it wait, to be slow.
	Hang bool `json:"hang,omitempty"`
}

var recorded struct {
	sync.Mutex
	events []map[string]any
	hang   chan struct{}
}

func init() { caddy.RegisterModule(eventRecorder{}) }

func (eventRecorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.feature_flags_test", New: func() caddy.Module { return new(eventRecorder) }}
}

func (r *eventRecorder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	r.Hang = d.NextArg()
	return nil
}

func (r eventRecorder) Handle(ctx context.Context, e caddy.Event) error {
	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	recorded.Lock()
	recorded.events = append(recorded.events, map[string]any{
		"name": e.Name(), "flag": e.Data["flag"], "data": e.Data["data"],
		"text": repl.ReplaceAll("{event.data.flag} by {event.data.by}: {event.data.reason}", ""),
	})
	hang := recorded.hang
	recorded.Unlock()
	if r.Hang && hang != nil {
		<-hang
	}
	if r.Hang && hang == nil {
		panic("a handler that panics")
	}
	return nil
}

func takeRecorded() (out []map[string]any) {
	recorded.Lock()
	defer recorded.Unlock()
	out, recorded.events = recorded.events, nil
	return out
}

var _ caddyevents.Handler = eventRecorder{}

func TestEventHandlers(t *testing.T) {
	takeRecorded()
	site := strings.Replace(canarySite, "	grace_period", "	events {\n		on feature_flags.tripped feature_flags_test\n		on feature_flags.overridden feature_flags_test\n	}\n	grace_period", 1)
	c := start(t, site, oneFlag, words(t))
	for range 3 {
		c.get("/?fail", "X-User-ID", "alice")
	}
	var events []map[string]any
	eventually(t, 3*time.Second, "the handler is not called", func() bool {
		events = append(events, takeRecorded()...)
		return len(events) > 0
	})
	e := events[0]
	data, _ := e["data"].(map[string]any)
	if len(events) != 1 || e["name"] != "feature_flags.tripped" || e["flag"] != "new_ui" || data["durable"] != true || data["test"] != "errors" ||
		!strings.HasPrefix(e["text"].(string), "new_ui by guard: 3 canary requests failed") {
		t.Errorf("the handler saw %v", events)
	}
	// Nobody listens to a reset; an override comes once, also after reloads.
	c.api("POST", "flags/new_ui/reset", "", 200)
	for range 3 {
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
	}
	c.api("POST", "flags/new_ui/disable", `{"by": "{env.HOME}", "reason": "why {event.name}"}`, 200)
	eventually(t, 3*time.Second, "the handler is not called after a reload", func() bool {
		events = takeRecorded()
		return len(events) > 0
	})
	if len(events) != 1 || events[0]["text"] != "new_ui by {env.HOME}: why {event.name}" {
		t.Errorf("the handler saw %v", events)
	}
}

// An event handler is somebody else's code: one that hangs or panics holds up no
// trip, no order, no reload, and nobody who watches.
func TestEventHandlerThatHangs(t *testing.T) {
	takeRecorded()
	hang := make(chan struct{})
	recorded.hang = hang
	site := strings.Replace(canarySite, "	grace_period", "	events {\n		on feature_flags.tripped feature_flags_test hang\n		on feature_flags.degraded feature_flags_test hang\n	}\n	grace_period", 1)
	c := start(t, site, `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 0}}`, words(t))
	quick := func(what string, f func()) {
		t.Helper()
		before := time.Now()
		f()
		if took := time.Since(before); took > 3*time.Second {
			t.Errorf("%s took %s while an event handler hangs", what, took)
		}
	}
	events := c.stream("")
	for range 3 { // the second and third wait behind the first
		quick("a trip", func() {
			c.get("/?fail", "X-User-ID", "alice")
			if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old") {
				t.Errorf("after the trip alice gets %q", r.body)
			}
		})
		next(t, events, "tripped")
		quick("a reset", func() { c.api("POST", "flags/new_ui/reset", "", 200) })
		next(t, events, "reset")
	}
	quick("a reload", func() {
		if err := c.load(); err != nil {
			t.Error(err)
		}
	})
	recorded.Lock()
	recorded.hang = nil // the others panic
	recorded.Unlock()
	close(hang)
	eventually(t, 3*time.Second, "the handler is not called any more", func() bool {
		recorded.Lock()
		defer recorded.Unlock()
		return len(recorded.events) == 3
	})
	c.get("/?fail", "X-User-ID", "alice")
	eventually(t, 3*time.Second, "a handler that panicked is not called again", func() bool {
		recorded.Lock()
		defer recorded.Unlock()
		return len(recorded.events) == 4
	})
	if text, err := os.ReadFile(filepath.Join(c.dir, "state", "state.journal")); err != nil || strings.Count(string(text), `{"trip":`) != 4 {
		t.Errorf("trips on disk: %v\n%s", err, text)
	}
}
