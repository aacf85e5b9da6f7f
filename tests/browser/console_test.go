package browser

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// operated is a shop with a console.
const operated = `SITE {
	bind 127.0.0.1
	handle_path /console/* {
		feature_flags_console
	}
	handle {
		feature_flags {
			context {
				user_id header X-User-ID
				region  header X-Region
			}
		}
		feature_flags_feedback /feedback {
			rate_limit off
		}
		feature_route new_shop {
			on {
				reverse_proxy NEW
			}
			off {
				reverse_proxy OLD
			}
		}
	}
}
`

const operatedFlags = `{
  "new_shop": {
    "active": true,
    "percentage_rollout": 30,
    "guard": {"false_alarm": 0.0001},
    "metadata": {"description": "The rewritten shop", "owner": "shop team", "type": "release", "created": "2026-09-01"}
  },
  "new_search": {
    "active": true,
    "rollout": {"steps": [1, 5, 25, 50, 100], "bake": "10m", "approve": [25]},
    "metadata": {"description": "Search by meaning, rolled out step by step", "owner": "search team", "type": "release", "created": "2026-10-20"}
  },
  "summer_banner": {"active": true, "deactivation_date": "2026-09-01", "metadata": {"owner": "marketing", "type": "operational"}},
  "pay_later": {"active": true, "regions": ["RO", "BG"], "account_types": ["premium"], "metadata": {"description": "Invoices for regulars", "owner": "payments", "type": "permission"}},
  "dark_mode": {"active": true, "client": true, "metadata": {"owner": "shop team"}},
  "old_checkout": {"active": false, "metadata": {"owner": "payments"}}
}
`

// traffic asks the shop for pages until the test ends; how much of the canary fails
// can be changed meanwhile.
type traffic struct {
	sick  atomic.Bool
	asked atomic.Int64
}

func operate(t *testing.T) (*server, *traffic) {
	t.Helper()
	tr := &traffic{}
	wait := func(mean float64) { time.Sleep(time.Duration(rand.ExpFloat64() * mean * float64(time.Millisecond))) }
	s := serve(t, operated, operatedFlags, map[string]string{
		"NEW": upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			wait(6)
			if tr.sick.Load() && rand.IntN(3) == 0 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}),
		"OLD": upstream(t, func(http.ResponseWriter, *http.Request) { wait(4) }),
	})
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		client := &http.Client{Timeout: 5 * time.Second}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				req, _ := http.NewRequest(http.MethodGet, s.site+"/", nil)
				req.Header.Set("X-User-ID", fmt.Sprint("u", rand.IntN(500)))
				req.Header.Set("X-Region", []string{"RO", "US", "DE"}[rand.IntN(3)])
				if resp, err := client.Do(req); err == nil {
					resp.Body.Close()
					tr.asked.Add(1)
				}
			}
		}
	}()
	t.Cleanup(func() { close(done); <-ended })
	return s, tr
}

// look makes the tab as large as a screen, light or dark.
func (b *tab) look(width, height int64, dark bool) {
	b.t.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[dark]
	b.do(chromedp.EmulateViewport(width, height))
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

// picture writes a screenshot of the whole page.
func (b *tab) picture(dir, name string) {
	b.t.Helper()
	shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), shot, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// walk goes to a page of the console, and waits until it is live.
func (b *tab) walk(s *server, path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.site + "/console/" + path))
	b.until(5*time.Second, "document.getElementById('live').dataset.state", "on")
}

// text is what an element says.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("(document.querySelector(%q)?.innerText ?? '')", selector))
}

// press presses a button by its name, as somebody with a keyboard does.
func (b *tab) press(name string) {
	b.t.Helper()
	found := eval[bool](b, fmt.Sprintf(`(() => {
		const b = [...document.querySelectorAll('button')].find((b) => b.textContent.trim() === %q && !b.disabled);
		b?.focus();
		return document.activeElement === b && !!b;
	})()`, name))
	if !found {
		b.t.Fatalf("there is no button %q to press", name)
	}
	if _, err := chromedp.RunResponse(b.ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		b.t.Fatal(err)
	}
}

// accessible fails the test for serious faults that axe finds on the page.
func (b *tab) accessible(name string) {
	b.t.Helper()
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.Evaluate[chromedp.Void](string(axe)))
	type fault struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML string }
	}
	out := eval[struct{ Violations []fault }](b, "axe.run().then((r) => ({violations: r.violations.map((v) => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map((n) => ({html: n.html}))}))}))")
	for _, v := range out.Violations {
		if v.Impact == "serious" || v.Impact == "critical" {
			b.t.Errorf("%s: %s: %s (%s) at %s", name, v.Impact, v.ID, v.Help, v.Nodes[0].HTML)
		}
	}
}

// A person sees a canary go bad, and why it was turned off; resets it; steers a
// rollout; asks why somebody gets what they get, and who would see a change.
func TestConsole(t *testing.T) {
	s, tr := operate(t)
	b := open(t)
	b.look(1280, 900, false)

	t.Run("list", func(t *testing.T) {
		b.t = t
		b.walk(s, "")
		b.until(5*time.Second, "document.querySelectorAll('#flags tbody tr').length", "6")
		if text := b.text("#flags"); !strings.Contains(text, "The rewritten shop") || !strings.Contains(text, "payments") || !strings.Contains(text, " d") {
			t.Errorf("the list says %q", text)
		}
		b.until(8*time.Second, "document.querySelectorAll('#flags .spark').length", "6")
		b.do(chromedp.SendKeys(chromedp.CSS("input[name=q]"), "regulars"))
		b.until(10*time.Second, "[...document.querySelectorAll('#flags tbody th a')].map((a) => a.innerText).join()", "pay_later")
		eval[any](b, "(() => { document.querySelector('input[name=q]').value = ''; const s = document.querySelector('select[name=status]'); s.value = 'inactive'; s.dispatchEvent(new Event('change', {bubbles: true})); })()")
		b.until(10*time.Second, "[...document.querySelectorAll('#flags tbody th a')].map((a) => a.innerText).join()", "old_checkout")
		// It is live: what somebody does elsewhere is seen without loading it again.
		b.walk(s, "")
		s.api(http.MethodPost, "flags/dark_mode/disable", `{"reason": "a complaint"}`)
		b.until(4*time.Second, "[...document.querySelectorAll('#flags tr')].find((r) => r.innerText.includes('dark_mode')).innerText.includes('disabled')", "true")
		b.accessible("list")
	})

	t.Run("a canary goes bad", func(t *testing.T) {
		b.t = t
		b.walk(s, "flags/new_shop")
		s.eventually(20*time.Second, "the chart shows no traffic", func() bool {
			return eval[float64](b, "window.consoleCharts ? window.consoleCharts.rate.data[1].filter((v) => v > 0).length : 0") > 2
		})
		if eval[float64](b, "Math.max(0, ...window.consoleCharts.errors.data[1])") != 0 {
			t.Error("the chart shows errors of a canary that has none")
		}
		tr.sick.Store(true)
		b.until(30*time.Second, "document.querySelector('#flag .trip h2') !== null", "true")
		b.until(5*time.Second, "Math.max(0, ...window.consoleCharts.errors.data[1]) > 5", "true")
		b.until(5*time.Second, "Math.max(0, ...window.consoleCharts.evidence.data[1]) > 9.2", "true")
		if text := b.text("#flag .trip"); !strings.Contains(text, "canary requests failed") || !strings.Contains(text, "by chance") {
			t.Errorf("the trip says %q", text)
		}
		if text := b.text("#flag h1"); !strings.Contains(text, "tripped") {
			t.Errorf("the flag is %q", text)
		}
		b.accessible("a tripped flag")
	})

	t.Run("what is open and typed stays", func(t *testing.T) {
		b.t = t
		b.do(chromedp.Click(chromedp.CSS(".trip summary")), chromedp.SendKeys(chromedp.CSS("input[name=reason]"), "I am still"))
		before := len(b.seen("/console/flags/new_shop"))
		s.eventually(15*time.Second, "the page does not refresh itself", func() bool { return len(b.seen("/console/flags/new_shop")) > before+1 })
		if open := eval[bool](b, "document.querySelector('.trip details').open && document.querySelector('input[name=reason]').value === 'I am still'"); !open {
			t.Error("a refresh has closed what was open, or taken what was typed")
		}
		// Enter in the reason orders nothing.
		b.do(chromedp.KeyEvent(kb.Enter))
		time.Sleep(300 * time.Millisecond)
		if got := s.api(http.MethodGet, "flags/new_shop", "")["status"]; got != "tripped" {
			t.Errorf("Enter has made it %v", got)
		}
		eval[any](b, "(() => { document.querySelector('input[name=reason]').value = ''; })()")
	})

	t.Run("reset", func(t *testing.T) {
		b.t = t
		tr.sick.Store(false)
		b.do(chromedp.SendKeys(chromedp.CSS("input[name=reason]"), "the database is back"))
		b.press("Reset")
		b.until(5*time.Second, "document.querySelector('#flag .trip') === null && document.querySelector('#flag h1').innerText.includes('split')", "true")
		if text := b.text("main"); !strings.Contains(text, "the database is back") || !strings.Contains(text, "console") {
			t.Errorf("who did what is not told: %q", text)
		}
		entry := s.api(http.MethodGet, "audit?flag=new_shop&limit=1", "")["entries"].([]any)[0].(map[string]any)
		if entry["action"] != "reset" || entry["by"] != "console" || entry["reason"] != "the database is back" {
			t.Errorf("%v", entry)
		}
	})

	t.Run("rollout", func(t *testing.T) {
		b.t = t
		b.walk(s, "flags/new_search")
		if got := b.text(".steps [aria-current]"); !strings.HasPrefix(got, "1") {
			t.Errorf("at step %q", got)
		}
		b.press("Promote")
		b.until(5*time.Second, "document.querySelector('.steps [aria-current]').innerText.startsWith('5')", "true")
		b.press("Pause")
		b.until(5*time.Second, "document.querySelector('.phase').innerText.includes('paused')", "true")
		b.do(chromedp.SendKeys(chromedp.CSS("input[name=percentage]"), "12.5"))
		b.press("Set")
		b.until(5*time.Second, "document.querySelector('.now strong').innerText", "12.5 %")
		if got := s.api(http.MethodGet, "flags/new_search", "")["percentage"]; got != 12.5 {
			t.Errorf("at %v %%", got)
		}
		b.accessible("a rollout")
	})

	t.Run("an answer that is no page", func(t *testing.T) {
		b.t = t
		b.walk(s, "flags/new_search")
		eval[any](b, "(() => { const real = window.fetch; window.fetch = async (...a) => window.failing ? new Response('<h1>Please log in</h1>', {headers: {'Content-Type': 'text/html'}}) : real(...a); window.failing = true; htmx.trigger(document.body, 'refresh'); })()")
		b.until(5*time.Second, "document.getElementById('live').dataset.state", "lost")
		if text := b.text("#flag"); !strings.Contains(text, "new_search") || !strings.Contains(text, "Definition") {
			t.Errorf("the page is lost: %q", text)
		}
		eval[any](b, "(() => { window.failing = false; htmx.trigger(document.body, 'refresh'); })()")
		b.until(5*time.Second, "document.getElementById('live').dataset.state", "on")
	})

	t.Run("playground", func(t *testing.T) {
		b.t = t
		b.walk(s, "playground")
		b.do(chromedp.SetValue(chromedp.CSS("textarea[name=context]"), `{"user_id": "alice", "region": "RO", "account_type": "premium"}`), chromedp.SetValue(chromedp.CSS("select[name=flag]"), "pay_later"))
		b.press("Decide")
		if text := b.text("details.decision"); !strings.Contains(text, "pay_later") || !strings.Contains(text, "on") || !strings.Contains(text, "account_type") {
			t.Errorf("decided %q", text)
		}
		b.do(chromedp.SetValue(chromedp.CSS("textarea[name=context]"), `{"user_id": `))
		b.press("Decide")
		if text := b.text("[role=alert]"); !strings.Contains(text, "context: want a JSON object") {
			t.Errorf("half a context: %q", text)
		}
		b.accessible("playground")
	})

	t.Run("preview", func(t *testing.T) {
		b.t = t
		b.walk(s, "preview")
		text := eval[string](b, "document.querySelector('textarea[name=text]').value")
		if text != operatedFlags {
			t.Errorf("it begins with %q", text)
		}
		b.do(chromedp.SetValue(chromedp.CSS("textarea[name=text]"), strings.Replace(text, `"percentage_rollout": 30`, `"percentage_rollout": 60`, 1)))
		b.press("Show who would change")
		rows := b.text("main table tbody")
		if !strings.Contains(rows, "new_shop\toff\ton\t") || strings.Contains(rows, "new_search") || regexp.MustCompile(`\bu\d+\b`).MatchString(rows) {
			t.Errorf("changes %q", rows)
		}
		b.do(chromedp.SetValue(chromedp.CSS("textarea[name=text]"), `{"new_shop": {"activ": true}}`))
		b.press("Show who would change")
		if text := b.text("[role=alert]"); !strings.Contains(text, `unknown field "activ" (did you mean "active"?)`) {
			t.Errorf("a mistake: %q", text)
		}
		if got := s.api(http.MethodGet, "flags/new_shop", "")["percentage"]; got != 30.0 {
			t.Errorf("the preview is in force: %v %%", got)
		}
		b.accessible("preview")
	})

	t.Run("other pages", func(t *testing.T) {
		b.t = t
		b.walk(s, "audit")
		if text := b.text("main"); !strings.Contains(text, "the database is back") {
			t.Errorf("%q", text)
		}
		b.accessible("audit")
		b.walk(s, "lint")
		if text := b.text("main"); !strings.Contains(text, "summer_banner") {
			t.Errorf("%q", text)
		}
		b.accessible("findings")
		b.do(chromedp.Navigate(s.site + "/console/flags/nosuch"))
		if text := b.text("main"); !strings.Contains(text, "not defined") {
			t.Errorf("%q", text)
		}
		// Dark, and on a phone.
		for _, page := range []string{"", "flags/new_shop", "playground", "preview"} {
			b.look(390, 844, true)
			b.walk(s, page)
			b.accessible(page + ", dark, on a phone")
			if wide := eval[float64](b, "document.documentElement.scrollWidth"); wide > 391 {
				t.Errorf("%q is %v wide on a phone", page, wide)
			}
		}
	})
	b.t = t
	if hosts := b.hosts(); len(hosts) != 1 {
		t.Errorf("the console asks %v", hosts)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.console {
		if text := m.String(); m.IsException() || strings.Contains(text, "Content Security Policy") || strings.Contains(text, "Refused") {
			t.Errorf("the browser complains: %s", text)
		}
	}
}

// TestScreenshots writes pictures of the console to the folder that SCREENSHOTS names.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		t.Skip("SCREENSHOTS names no folder: pictures are made by `make screenshots`")
	}
	s, tr := operate(t)
	b := open(t)
	for _, who := range []string{"ann", "bob", "cem"} {
		s.do(http.MethodPost, s.site+"/feedback", `{"flag": "new_shop", "rating": 4, "comment": "faster than before"}`, "X-User-ID", who, "Content-Type", "application/json")
	}
	b.look(1280, 900, false)
	b.do(chromedp.Navigate(s.site + "/console/flags/new_shop"))
	time.Sleep(90 * time.Second) // something to see
	tr.sick.Store(true)
	b.until(30*time.Second, "document.querySelector('#flag .trip h2') !== null", "true")
	time.Sleep(3 * time.Second)
	tr.sick.Store(false)
	for _, size := range []struct{ width, height int64 }{{1280, 900}, {390, 844}} {
		for _, dark := range []bool{false, true} {
			b.look(size.width, size.height, dark)
			for _, page := range [][2]string{
				{"flag", "flags/new_shop"},
				{"flags", ""},
				{"rollout", "flags/new_search"},
				{"targeted", "flags/pay_later"},
				{"audit", "audit"},
				{"lint", "lint"},
				{"playground", "playground?flag=pay_later"},
				{"preview", "preview"},
			} {
				b.do(chromedp.Navigate(s.site + "/console/" + page[1]))
				b.until(5*time.Second, "document.getElementById('live').dataset.state", "on")
				if page[0] == "playground" {
					b.press("Decide")
				}
				time.Sleep(700 * time.Millisecond) // charts
				b.picture(dir, fmt.Sprintf("%s-%d-%s", page[0], size.width, map[bool]string{true: "dark", false: "light"}[dark]))
			}
		}
	}
}
