package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A mistake of one remote source holds up no other.
func TestRemoteSourcesStandAlone(t *testing.T) {
	one, two := newRemote(t), newRemote(t)
	says := func(rm *remote, text string) {
		tag := fmt.Sprintf("%q", fmt.Sprint(len(text)))
		rm.does(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("ETag", tag)
			fmt.Fprint(w, text)
		})
	}
	says(one, `{"a": {"active": true}}`)
	says(two, `{"b": {"active": true}}`)
	text := strings.Replace(remoteSite, `		source http REMOTE/flags.json?token=hidden-token {
			poll 1s
			header Authorization "Bearer open sesame"
			timeout 2s
			OPTIONAL
		}
`, "		source http ONE/ {\n			poll 1s\n		}\n		source http TWO/ {\n			poll 1s\n		}\n", 1)
	c := start(t, text, "{}", map[string]string{"ONE": one.URL, "TWO": two.URL, "APP": host(echo(t, "app"))})
	if !c.on("A") || !c.on("B") {
		t.Fatal("the flags are not on")
	}
	time.Sleep(300 * time.Millisecond) // the copies
	says(two, `{"b": {"active": "yes?"}}`)
	says(one, `{"a": {"active": false}}`)
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if c.on("A") || !c.on("B") {
		t.Errorf("a mistake of one source has put the other back: a %t, b %t", c.on("A"), c.on("B"))
	}
	if degraded := fmt.Sprint(c.api("GET", "flags", "", 200)["degraded"]); !strings.Contains(degraded, two.URL) {
		t.Errorf("degraded %s", degraded)
	}
	says(two, `{"b": {"active": true}, "b2": {"active": true}}`)
	eventually(t, 10*time.Second, "it is not taken when it is well again", func() bool { return c.on("B2") })
	eventually(t, 10*time.Second, "it is degraded still", func() bool {
		return len(c.api("GET", "flags", "", 200)["degraded"].([]any)) == 0
	})
	if c.on("A") {
		t.Error("a is on again")
	}
}
