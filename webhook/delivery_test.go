package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestRequestsAreWhatReceiversExpect sends one event in each format, signed, and checks all of the request.
func TestRequestsAreWhatReceiversExpect(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	r := listen(t, status(202))
	s := open(t, "", Options{})
	for _, f := range []Format{CloudEvents, Slack, PagerDuty} {
		target := Target{
			URL:    strings.Replace(r.URL, "http://", "http://user:pass@", 1) + "/" + string(f) + "?q=1",
			Secret: "first-secret " + secret, Format: f, Header: http.Header{"x-tenant": {"a", "b"}},
		}
		if f == PagerDuty {
			target.RoutingKey = "routing-key"
		}
		before := len(r.got())
		configure(t, s, target)
		s.Send(Event{ID: "evt_" + string(f), Type: Tripped, Flag: "checkout", Time: when})
		eventually(t, "sent", func() bool { return len(r.got()) > before && s.Queued() == 0 })
		h := r.got()[before]
		for _, key := range strings.Fields(target.Secret) {
			if err := Verify(key, h.header, []byte(h.body), time.Now(), 0); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
		media := "application/json"
		if f == CloudEvents {
			media = "application/cloudevents+json; charset=utf-8"
		}
		user, pass, _ := (&http.Request{Header: h.header}).BasicAuth()
		if h.id != "evt_"+string(f) || h.path != "/"+string(f)+"?q=1" || h.header.Get("Content-Type") != media ||
			strings.Join(h.header.Values("X-Tenant"), " ") != "a b" || user != "user" || pass != "pass" ||
			h.header.Get("User-Agent") != "caddy-feature-flags" || h.header.Get("Accept-Encoding") != "" {
			t.Errorf("%s: request %+v", f, h)
		}
		wantSound(t, f, []byte(h.body))
		if f == PagerDuty && !strings.Contains(h.body, `"routing_key":"routing-key"`) {
			t.Errorf("no routing key in %s", h.body)
		}
	}
}

func TestUnsignedRequestsHaveAnIDToo(t *testing.T) {
	r := listen(t, nil)
	s := open(t, "", Options{}, Target{URL: r.URL})
	s.Send(Event{ID: "x", Type: Tripped})
	eventually(t, "sent", func() bool { return len(r.got()) == 1 })
	h := r.got()[0].header
	if h.Get("webhook-id") != "x" || h.Get("webhook-timestamp") == "" || h.Values("webhook-signature") != nil {
		t.Errorf("headers %v", h)
	}
}

// TestIDStaysAndTimeMoves has two attempts fail: the third has the same id and body, and its own signed time.
func TestIDStaysAndTimeMoves(t *testing.T) {
	t.Parallel()
	r := listen(t, func(n int, _ heard) (int, http.Header, string) {
		if n < 3 {
			return 503, nil, ""
		}
		return 204, nil, ""
	})
	var told reports
	s := open(t, "", Options{Told: told.told}, Target{URL: r.URL, Secret: "secret", Name: "a"})
	s.Send(Event{Type: Tripped, Flag: "f"})
	eventually(t, "delivered", func() bool { return s.Queued() == 0 && len(told.get()) == 3 })
	got := r.got()
	for _, h := range got {
		if h.id != got[0].id || h.body != got[0].body || Verify("secret", h.header, []byte(h.body), time.Now(), time.Minute) != nil {
			t.Errorf("attempt %+v", h)
		}
	}
	if got[0].header.Get("webhook-timestamp") == got[2].header.Get("webhook-timestamp") {
		t.Error("the third attempt, three seconds later, has the time of the first one")
	}
	all := told.get()
	if all[2] != (Report{Target: "a", Type: Tripped, Flag: "f", Attempt: 3, Final: true}) {
		t.Errorf("told %+v", all[2])
	}
}

// TestWhatAnswersMean tries an event once with each status.
func TestWhatAnswersMean(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status       int
		final, fails bool
	}{
		{200, true, false},
		{201, true, false},
		{202, true, false},
		{204, true, false},
		{299, true, false},
		{300, false, true},
		{301, false, true},
		{302, false, true},
		{304, false, true},
		{307, false, true},
		{308, false, true},
		{400, true, true},
		{401, true, true},
		{403, true, true},
		{404, true, true},
		{410, true, true},
		{413, true, true},
		{451, true, true},
		{499, true, true},
		{408, false, true},
		{425, false, true},
		{429, false, true},
		{500, false, true},
		{502, false, true},
		{503, false, true},
		{504, false, true},
		{599, false, true},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			r := listen(t, func(int, heard) (int, http.Header, string) {
				return c.status, http.Header{"Location": {"/elsewhere"}}, ""
			})
			var told reports
			s := open(t, "", Options{Told: told.told}, Target{URL: r.URL, Name: "a"})
			s.Send(Event{Type: Tripped})
			eventually(t, "told", func() bool { return len(told.get()) == 1 })
			got := told.get()[0]
			if got.Final != c.final || (got.Err != nil) != c.fails || (s.Queued() == 0) != c.final || len(r.got()) != 1 {
				t.Errorf("told %+v, %d queued, %d requests", got, s.Queued(), len(r.got()))
			}
			if c.fails && !strings.HasPrefix(got.Err.Error(), fmt.Sprintf("webhook a: answered %d", c.status)) {
				t.Errorf("error %v", got.Err)
			}
			if redirect := c.status/100 == 3; redirect != strings.Contains(errorText(got.Err), "redirects are not followed") {
				t.Errorf("error %v", got.Err)
			}
		})
	}
}

// TestSecretsStayOutOfReports has peers repeat everything that they were sent, in answers of all kinds, and has the
// network fail in all ways: no report, error or name has a secret in it.
func TestSecretsStayOutOfReports(t *testing.T) {
	var secrets []string
	echo := func(_ int, h heard) (int, http.Header, string) {
		var b strings.Builder
		b.WriteString(h.path + " " + strings.ReplaceAll(h.path, "/", `\/`) + " " + h.body + "\n")
		b.WriteString(strings.Repeat("\x00", 100)) // Nothing of it is shown.
		for name, values := range h.header {
			fmt.Fprintf(&b, "%s=%q ", name, values)
		}
		for _, s := range secrets { // Also what it could know from elsewhere, and in pieces at the end of what is read.
			b.WriteString(" " + s)
		}
		return 400, nil, b.String()
	}
	r := listen(t, echo)
	bare := r.Listener.Addr().String()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	const path = "/services/T0AAAAAAA/B0BBBBBBB/cccccccccccccccccccccccc"
	target := func(scheme, host string) Target {
		return Target{
			URL:    scheme + "://robot:hunter2%21@" + host + path + "?token=q%2Fuerysecret&x=y",
			Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw plain-secret", Format: PagerDuty, RoutingKey: "R0UTINGKEY",
			Header: http.Header{"Authorization": {"Bearer bearer-secret"}, "X-Key": {"header-secret"}},
		}
	}
	secrets = []string{
		"hunter2", "robot:", "T0AAAAAAA", "B0BBBBBBB", "cccccccccccccccccccccccc", "q%2Fuerysecret", "q/uerysecret",
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain-secret", "R0UTINGKEY", "bearer-secret", "header-secret",
	}
	var told reports
	s := open(t, "", Options{Told: told.told},
		target("http", bare), target("https", bare), target("http", nobody), target("http", "no-such-host.invalid"))
	s.Send(Event{Type: Tripped, Flag: "f"})
	eventually(t, "four attempts", func() bool { return len(told.get()) >= 4 })
	text := told.texts()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows in\n%s", secret, text)
		}
	}
	for _, want := range []string{"answered 400 Bad Request: ", redacted, "connection refused", "server gave HTTP response to HTTPS client"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestTextsAreRedacted(t *testing.T) {
	target := Target{URL: "https://u:pw@host/T0KENT0KEN", Secret: "secret-a", Header: http.Header{"X": {"bearer v4lue-long"}}}
	d := newDestination(target)
	f := func(text string, whole bool, want string) {
		t.Helper()
		if got := d.redaction.text(text, whole, 60); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	f("fine", true, "fine")
	f("  two\r\n lines\x00\x1b[0m\t ", true, "two lines[0m")
	f("\xff\xfe", true, "")
	f("T0KEN\x00T0KEN", true, "[redacted]")
	f("at T0KENT0KE", false, "")
	f(strings.Repeat("y", 100)+" T0KENT0KE", true, strings.Repeat("y", 57)+"…")
	f("v4lue-long secret-a pw", true, "[redacted] [redacted] [redacted]")
	f(`proxy "http://me:word@proxy:3128/": refused`, true, `proxy "http://[redacted]@proxy:3128/": refused`)
	f("ok", false, "") // What is cut could be all of a secret.
}

// TestAnswersAreReadInPart has a peer answer without end.
func TestAnswersAreReadInPart(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("all work ", 1000)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	var told reports
	s := open(t, "", Options{Told: told.told}, Target{URL: server.URL, Name: "a"})
	s.Send(Event{Type: Tripped})
	eventually(t, "told", func() bool { return len(told.get()) > 0 })
	if text := told.get()[0].Err.Error(); len(text) > 400 || !strings.Contains(text, "all work all work") {
		t.Errorf("told %s", text)
	}
	mustCloseWith(t, s, 1)
}

// mustCloseWith closes a sender in memory that loses some events.
func mustCloseWith(t *testing.T, s *Sender, lost int) {
	t.Helper()
	if got, want := errorText(s.Close()), fmt.Sprintf("closing webhooks: %d events are neither delivered nor on disk", lost); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPeersThatLie speak something else than HTTP, or break off.
func TestPeersThatLie(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"nothing", "", "EOF"},
		{"rubbish", "hello\r\n\r\n", "malformed HTTP"},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-Le", "malformed MIME header"},
		{"endless header", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 200<<10), "server response headers exceeded"},
		{"strange reason", "HTTP/1.1 500 \x1b[31mhunter2\r\nContent-Length: 0\r\n\r\n", "answered 500 Internal Server Error"},
		{"cut body", "HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\nhalf", `answered 503 Service Unavailable`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.Read(make([]byte, 64<<10))
					io.WriteString(conn, c.answer)
					conn.Close()
				}
			}()
			defer func() { l.Close(); <-done }()
			var told reports
			s := open(t, "", Options{Told: told.told}, Target{URL: "http://" + l.Addr().String(), Name: "a"})
			s.Send(Event{Type: Tripped})
			eventually(t, "told", func() bool { return len(told.get()) > 0 })
			if got := told.get()[0]; got.Err == nil || !strings.Contains(got.Err.Error(), c.want) || got.Final {
				t.Errorf("told %+v, want %q", got, c.want)
			}
			mustCloseWith(t, s, 1)
		})
	}
}

// TestEveryTargetGetsWhatItWants sends every type to targets with and without types.
func TestEveryTargetGetsWhatItWants(t *testing.T) {
	all, one, pd := listen(t, nil), listen(t, nil), listen(t, nil)
	s := open(t, "", Options{}, Target{URL: all.URL}, Target{URL: one.URL, Types: []string{Reset}}, Target{URL: pd.URL, Format: PagerDuty, RoutingKey: "k"})
	for _, name := range Types() {
		s.Send(Event{ID: strings.TrimPrefix(name, "feature_flags."), Type: name, Flag: "f"})
		s.Send(Event{ID: strings.TrimPrefix(name, "feature_flags.") + "-again", Type: name, Flag: "f"}) // Told too.
	}
	eventually(t, "all sent", func() bool { return s.Queued() == 0 })
	if n := len(all.got()); n != 2*len(Types()) {
		t.Errorf("%d events, want all", n)
	}
	wantIDs(t, one.ids(), "reset", "reset-again")
	wantIDs(t, pd.ids(), "tripped", "tripped-again", "reset", "reset-again", "degraded", "degraded-again", "recovered", "recovered-again")
}

// TestSendTakesACopy changes what was sent, after it was.
func TestSendTakesACopy(t *testing.T) {
	r := listen(t, nil)
	header := http.Header{"X-A": {"one"}}
	s := open(t, "", Options{}, Target{URL: r.URL, Header: header})
	header.Set("X-A", "two")
	data := json.RawMessage(`{"a":1}`)
	s.Send(Event{Type: Tripped, Data: data})
	copy(data, bytes.Repeat([]byte("!"), len(data)))
	eventually(t, "sent", func() bool { return len(r.got()) == 1 })
	if h := r.got()[0]; !strings.Contains(h.body, `"details":{"a":1}`) || h.header.Get("X-A") != "one" {
		t.Errorf("got %+v", h)
	}
}
