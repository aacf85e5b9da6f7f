package tests

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func pinned(t *testing.T, length string, canary http.HandlerFunc) *instance {
	t.Helper()
	return serve(t, site+strings.Replace(twoWays, "\t\toff {", "\t\tpin PIN\n\t\toff {", 1)+"}\n", `{"new_ui": {"active": true, "percentage_rollout": 100}}`,
		map[string]string{"NEW": host(keep(t, "new", canary).Server), "OLD": host(keep(t, "old", nil).Server), "PIN": length})
}

func pinsOf(r reply) (n int) {
	for _, line := range r.header["Set-Cookie"] {
		if strings.HasPrefix(line, "feature_flags_pin_new_ui=") {
			n++
		}
	}
	return n
}

// Whoever has loaded the new page stays on new when the percentage falls, with all
// that the page asks for, until the pin ends.
func TestPin(t *testing.T) {
	c := pinned(t, "3s", nil)
	b, other := browser(t), browser(t)
	r := visit(t, b, c.url(0)+"/", "Sec-Fetch-Dest", "document")
	if r.body != "new" || pinsOf(r) != 1 {
		t.Fatalf("%q %v, want a pin", r.body, r.header)
	}
	if line := r.header.Get("Set-Cookie"); !strings.Contains(line, "HttpOnly") || !strings.Contains(line, "Max-Age=3") || !strings.Contains(line, "SameSite=Lax") {
		t.Errorf("Set-Cookie: %s", line)
	}
	if got := varies(r.header); len(got) != 1 || got[0] != "cookie" {
		t.Errorf("Vary %q", got)
	}
	if n := pinsOf(visit(t, b, c.url(0)+"/", "Sec-Fetch-Dest", "document")); n != 0 {
		t.Error("the pin is given again though it is fresh")
	}
	if n := pinsOf(visit(t, other, c.url(0)+"/style.css", "Sec-Fetch-Dest", "style")); n != 0 {
		t.Error("a part of a page gives a pin")
	}
	begun := time.Now()
	c.api("POST", "flags/new_ui/rollout", `{"percentage": 0}`, 200)
	for _, dest := range []string{"document", "style", "image", "empty"} {
		r := visit(t, b, c.url(0)+"/"+dest, "Sec-Fetch-Dest", dest, "X-User-ID", "somebody")
		if r.body != "new" || pinsOf(r) != 0 {
			t.Errorf("%s comes from %q, %d pins", dest, r.body, pinsOf(r))
		}
	}
	if r := visit(t, other, c.url(0)+"/"); r.body != "old" {
		t.Errorf("without a pin: %q", r.body)
	}
	told := c.entries(8)
	if f := told[4].Flags["new_ui"]; f.Variant != "on" || f.Detail != "pinned" || f.Reason != "TARGETING_MATCH" {
		t.Errorf("access log %+v", f)
	}
	time.Sleep(time.Until(begun.Add(3100 * time.Millisecond)))
	if r := visit(t, b, c.url(0)+"/"); r.body != "old" {
		t.Errorf("after the pin's end: %q", r.body)
	}
}

// A trip ends every pin, also when the flag is on again; so does a person's word. A
// restart and a reload do not.
func TestPinEnds(t *testing.T) {
	var sick atomic.Bool
	c := pinned(t, "1m", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, "new")
	})
	b := browser(t)
	visit(t, b, c.url(0)+"/")
	way := func() string { return visit(t, b, c.url(0)+"/x.css", "Sec-Fetch-Dest", "style").body }
	c.api("POST", "flags/new_ui/rollout", `{"percentage": 0}`, 200)
	if way() != "new" {
		t.Fatal("the pin does nothing")
	}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if way() != "new" {
		t.Error("the pin ends with a reload")
	}
	c.api("POST", "flags/new_ui/disable", "", 200)
	if way() != "old" {
		t.Error("pinned to a flag that is disabled")
	}
	c.api("POST", "flags/new_ui/reset", "", 200)
	if way() != "new" {
		t.Error("the pin is gone, and nothing has tripped")
	}
	time.Sleep(1100 * time.Millisecond) // pins know seconds
	sick.Store(true)
	c.write("features.json", `{"new_ui": {"active": true, "percentage_rollout": 100, "users": ["ann"], "error_threshold": 0}}`)
	eventually(t, 3*time.Second, "it does not trip", func() bool {
		c.get("/", "X-User-ID", "ann")
		return c.guard("new_ui").State.Tripped
	})
	sick.Store(false)
	if way() != "old" {
		t.Error("pinned to a flag that has tripped")
	}
	c.api("POST", "flags/new_ui/reset", "", 200)
	c.api("POST", "flags/new_ui/rollout", `{"percentage": 0}`, 200)
	if way() != "old" {
		t.Error("a pin from before the trip holds again")
	}
}

// What fails gives no pin; nor does a cookie that nobody has signed.
func TestPinIsNotFooled(t *testing.T) {
	c := pinned(t, "1m", fails)
	if r := visit(t, browser(t), c.url(0)+"/"); r.status != 500 || pinsOf(r) != 0 {
		t.Errorf("%d with %d pins", r.status, pinsOf(r))
	}
	c = pinned(t, "1m", nil)
	b := browser(t)
	r := visit(t, b, c.url(0)+"/")
	_, rest, _ := strings.Cut(r.header.Get("Set-Cookie"), "=")
	value, _, _ := strings.Cut(rest, ";")
	c.api("POST", "flags/new_ui/rollout", `{"percentage": 0}`, 200)
	for name, v := range map[string]string{
		"forged": value[:len(value)-1] + "_", "truncated": value[:len(value)-5], "unsigned": "on", "empty": "",
		"longer": strings.Replace(value, "~", "~z", 1), "huge": strings.Repeat(value, 100),
	} {
		if got := fetch(t, c.url(0)+"/", "Cookie", "feature_flags_pin_new_ui="+v).body; got != "old" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := fetch(t, c.url(0)+"/", "Cookie", fmt.Sprintf("a=b; feature_flags_pin_new_ui=%s; c=d", value)).body; got != "new" {
		t.Errorf("as it was signed: %q", got)
	}
}
