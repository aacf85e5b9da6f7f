package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// consoleAlone is a console that nobody sends requests past.
const consoleAlone = `SITE {
	bind 127.0.0.1
	handle_path /console/* {
		feature_flags_console
	}
}
`

// has waits until an element says something.
func (b *tab) has(limit time.Duration, selector, words string) {
	b.t.Helper()
	b.until(limit, fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, words), "true")
}

// A page that was cut off shows what is in force now, however quiet the flag is.
func TestConsoleComesBack(t *testing.T) {
	b, dated := open(t), open(t) // the browser has started
	soon := time.Now().Add(8 * time.Second).UTC().Format(time.RFC3339)
	flags := `{"quiet": {"active": true, "percentage_rollout": 50}, "dated": {"active": true, "deactivation_date": "` + soon + `"}}`
	s := serve(t, consoleAlone, flags, nil)
	dated.walk(s, "flags/dated")
	dated.has(10*time.Second, "h1", "on")
	b.walk(s, "flags/quiet")
	b.has(10*time.Second, "h1", "split")
	dated.has(18*time.Second, ".now", "deactivation date has passed")

	s.kill()
	b.until(5*time.Second, "document.getElementById('live').dataset.state", "lost")
	s.write("features.json", strings.Replace(flags, `"active": true, "percentage_rollout"`, `"active": false, "percentage_rollout"`, 1))
	s.start()
	b.has(8*time.Second, ".now", "not active")
	b.until(10*time.Second, "document.getElementById('live').dataset.state", "on")

	// A server that hangs ends no connection.
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.until(20*time.Second, "document.getElementById('live').innerText", "lost: the server is silent")
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.until(10*time.Second, "document.getElementById('live').dataset.state", "on")

	s.kill()
	s.write("features.json", `{}`)
	s.start()
	b.until(8*time.Second, "document.getElementById('live').innerText", "gone: this is what was there")
	b.has(time.Second, "h1", "quiet")
}

// A page that was away for a while asks for what it has missed, its charts' past too.
func TestConsoleComesToTheFront(t *testing.T) {
	s := serve(t, consoleAlone, `{"quiet": {"active": true, "percentage_rollout": 50}}`, nil)
	b := open(t)
	b.walk(s, "flags/quiet")
	eval[any](b, "(() => { window.away = true; Object.defineProperty(document, 'hidden', {get: () => window.away}); document.dispatchEvent(new Event('visibilitychange')); })()")
	b.until(5*time.Second, "document.getElementById('live').innerText", "not live")
	before := len(b.seen("/series?last=live"))
	s.api(http.MethodPost, "flags/quiet/disable", `{"by": "ann"}`)
	eval[any](b, "(() => { window.away = false; document.dispatchEvent(new Event('visibilitychange')); })()")
	b.has(5*time.Second, ".now", "disabled by ann")
	b.until(5*time.Second, "document.getElementById('live').innerText", "live")
	s.eventually(5*time.Second, "the charts have a hole", func() bool { return len(b.seen("/series?last=live")) > before })
}

// stub has the page's requests for what has the part answered by a script, which may
// call real().
func (b *tab) stub(part, script string) {
	b.t.Helper()
	eval[any](b, fmt.Sprintf(`(() => {
		const before = window.fetch;
		window.fetch = async (...a) => { const real = () => before(...a); return String(a[0].url ?? a[0]).includes(%q) ? (%s) : real(); };
	})()`, part, script))
}

// Each part of a page tells for itself that it is not up to date.
func TestConsolePartsFail(t *testing.T) {
	s := serve(t, consoleAlone, `{"quiet": {"active": true, "percentage_rollout": 50}, "other": {"active": true}}`, nil)
	b := open(t)
	b.walk(s, "flags/quiet")
	b.stub("/flags/quiet", "window.failing && !String(a[0]).includes('series') ? new Response('no', {status: 500}) : real()")
	eval[any](b, "(() => { window.failing = true; htmx.trigger(document.body, 'refresh'); })()")
	b.until(5*time.Second, "document.getElementById('live').dataset.state", "lost")
	for range 10 { // while the banners, and the server's ticks, do come
		eval[any](b, "htmx.trigger(document.body, 'refresh')")
		time.Sleep(100 * time.Millisecond)
		if got := eval[string](b, "document.getElementById('live').dataset.state"); got != "lost" {
			t.Fatalf("with a part that fails it is %q", got)
		}
	}
	eval[any](b, "(() => { window.failing = false; htmx.trigger(document.body, 'refresh'); })()")
	b.until(5*time.Second, "document.getElementById('live').dataset.state", "on")

	// The charts keep what they have.
	const few = `Response.json({step: 2, to: Date.now() / 1000, marks: [{t: Date.now() / 1000 - 30, what: 'tripped'}], samples: [0, 1, 2, 3, 4, 5].map((k) => ({
		t: Date.now() / 1000 - 60 + 2 * k, step: 2, log_e: null, trip_at: 0, now: {status: 'split', percentage: 50, verdict: ''},
		canary: {rate: k % 2, errors: k % 2 ? 100 : null, p50: k % 2 ? 0.02 : null, p99: k % 2 ? 0.05 : null}, control: {rate: 2, errors: 0, p50: 0.01, p99: 0.02}}))})`
	b.stub("/series", "window.failing ? new Response('no', {status: 502}) : "+few)
	b.do(chromedp.Click(chromedp.CSS("[data-span='1h']")))
	b.until(5*time.Second, "consoleCharts.errors.data[1].join()", ",100,,100,,100")

	// Values with nothing beside them are points: the canvas has the canary's colour.
	painted := `(() => { const c = consoleCharts.errors.ctx.canvas, d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
		const probe = document.createElement('i'); probe.className = 'key canary'; document.body.append(probe);
		const want = getComputedStyle(probe).borderTopColor.match(/\d+/g).map(Number); probe.remove();
		let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200 && want.every((v, k) => Math.abs(d[i + k] - v) < 12)) n++; return n; })()`
	b.until(10*time.Second, painted+" > 8", "true")
	if got := eval[float64](b, "consoleCharts.errors.scales.x.max - consoleCharts.errors.scales.x.min"); got < 3590 || got > 3610 {
		t.Errorf("the chart of an hour is %v s long", got)
	}

	// Read exactly, by the keyboard.
	eval[any](b, "document.querySelector('[data-chart=errors]').focus()")
	b.do(chromedp.KeyEvent(kb.Home), chromedp.KeyEvent(kb.ArrowRight))
	b.until(10*time.Second, "document.querySelector('[data-chart=errors] ~ .readout').innerText.replace(/\\s+/g, ' ').replace(/\\d\\d-\\d\\d \\d\\d:\\d\\d/, 'T')", "canary 100 % control 0 % T")
	b.until(10*time.Second, "document.querySelector('[data-chart=latency] ~ .readout').innerText.includes('20 ms')", "true")

	// By the mouse, on all charts at once.
	eval[any](b, "document.activeElement.blur()")
	mouse := eval[[]float64](b, `(() => { const u = consoleCharts.rate, r = u.over.getBoundingClientRect(); return [r.left + u.valToPos(u.data[0][0], 'x'), r.top + 20]; })()`)
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, mouse[0], mouse[1]))
	for chart, want := range map[string]string{"rate": "canary 0/s", "errors": "canary –"} {
		b.until(10*time.Second, "document.querySelector('[data-chart="+chart+"] ~ .readout').innerText.replace(/\\s+/g, ' ').startsWith('"+want+"')", "true")
	}

	eval[any](b, "(() => { window.failing = true; })()")
	b.do(chromedp.Click(chromedp.CSS("[data-span='14d']")))
	b.has(5*time.Second, "#charts-note", "The past cannot be had now")
	b.until(10*time.Second, "document.getElementById('live').dataset.state", "lost")
	if got := eval[float64](b, "consoleCharts.errors.data[0].length"); got != 6 {
		t.Errorf("%v samples are left", got)
	}
	eval[any](b, "(() => { window.failing = false; })()")
	b.until(8*time.Second, "document.getElementById('charts-note').hidden", "true") // by itself
	b.until(10*time.Second, "document.getElementById('live').dataset.state", "on")
}

// What a page shows already is not sent again, and what was searched for is found again.
func TestConsoleList(t *testing.T) {
	long := strings.Repeat("longword", 16)
	s := serve(t, consoleAlone, `{"quiet": {"active": true, "metadata": {"description": "https://example.com/`+strings.Repeat("x", 90)+` `+strings.Repeat("and so on ", 60)+`"}}, "other": {"active": true}, "`+long+`": {"active": true, "metadata": {"owner": "`+long+`"}}}`, nil)
	b := open(t)
	b.look(1280, 900, false)
	b.walk(s, "")
	title := eval[string](b, "document.title")
	s.eventually(20*time.Second, "the list is sent again and again", func() bool {
		return slices.ContainsFunc(b.seen("/console/"), func(r seenRequest) bool {
			return r.status == http.StatusNotModified && strings.HasSuffix(strings.TrimSuffix(r.url, "?q=&status="), "/console/")
		})
	})
	if got := eval[string](b, "document.title"); got != title {
		t.Errorf("the title has become %q", got)
	}
	if got := eval[string](b, "document.getElementById('live').dataset.state"); got != "on" {
		t.Errorf("with nothing new it is %q", got)
	}

	b.do(chromedp.SendKeys(chromedp.CSS("input[name=q]"), "oth"))
	b.until(10*time.Second, "location.search", "?q=oth")
	b.until(10*time.Second, "document.querySelectorAll('#flags tbody th').length", "1")
	b.do(chromedp.Click(chromedp.CSS("#flags tbody th a")))
	b.until(10*time.Second, "document.getElementById('flag') !== null", "true")
	eval[any](b, "history.back()")
	b.until(5*time.Second, "document.querySelector('input[name=q]')?.value === 'oth' && document.querySelectorAll('#flags tbody th').length === 1", "true")

	for _, width := range []int64{1280, 390} {
		b.look(width, 844, false)
		for _, page := range []string{"", "flags/quiet", "flags/" + long} {
			b.walk(s, page)
			if wide := eval[float64](b, "document.documentElement.scrollWidth"); wide > float64(width)+1 {
				t.Errorf("%.20q is %v wide, of %d", page, wide, width)
			}
			if unseen := eval[float64](b, "[...document.querySelectorAll('main .status')].filter((e) => { const r = e.getBoundingClientRect(); return r.right > innerWidth || r.width < 5; }).length"); unseen > 0 {
				t.Errorf("%.20q at %d hides %v states", page, width, unseen)
			}
		}
	}
	b.walk(s, "")
	if high := eval[float64](b, "Math.max(...[...document.querySelectorAll('#flags th .about')].map((e) => e.getBoundingClientRect().height))"); high > 50 {
		t.Errorf("a description is %v high", high)
	}
}

// Whoever has no mouse sees where they are.
func TestConsoleFocus(t *testing.T) {
	s := serve(t, consoleAlone, `{"quiet": {"active": true}}`, nil)
	b := open(t)
	b.walk(s, "flags/quiet")
	b.do(chromedp.KeyEvent(kb.Tab))
	if got := eval[string](b, "getComputedStyle(document.activeElement).backgroundColor + document.activeElement.className"); got != "rgb(255, 255, 255)skip" {
		t.Errorf("the skip link is %q", got)
	}
	for range 30 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if eval[bool](b, "document.activeElement.dataset.span === '1h'") {
			if got := eval[string](b, "getComputedStyle(document.activeElement).outlineStyle"); got != "solid" {
				t.Errorf("the outline is %q", got)
			}
			return
		}
	}
	t.Error("the button is not reached")
}

// Times are in the browser's zone, and typed as they are shown.
func TestConsoleTimes(t *testing.T) {
	s := serve(t, consoleAlone, `{"dated": {"active": true, "activation_date": "2026-01-31T12:00:00Z"}}`, nil)
	b := open(t)
	if _, err := chromedp.Call(b.ctx, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Tokyo"}); err != nil {
		t.Fatal(err)
	}
	s.api(http.MethodPost, "flags/dated/disable", "")
	b.walk(s, "audit")
	b.until(10*time.Second, "document.getElementById('zone').innerText", "Asia/Tokyo")
	at := eval[string](b, "document.querySelector('main time').dateTime")
	want, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.text("main time"); got != want.Add(9*time.Hour).Format(time.DateTime) {
		t.Errorf("%s is shown as %q", at, got)
	}
	s.api(http.MethodPost, "flags/dated/reset", "")
	for _, typed := range [][2]string{{"2026-01-31 20:59", "not_yet_active"}, {"2026-01-31 21:01", "STATIC"}} {
		b.walk(s, "playground?flag=dated")
		b.do(chromedp.SendKeys(chromedp.CSS("input[name=at]"), typed[0]))
		b.press("Decide")
		b.has(10*time.Second, "details.decision", typed[1])
		b.until(10*time.Second, "document.querySelector('input[name=at]').value", typed[0]+":00")
	}
	if seen := b.seen("user_id"); len(seen) > 0 {
		t.Errorf("an identity is in the address %s", seen[0].url)
	}
}
