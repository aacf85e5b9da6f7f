package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// One decision a request, even when definitions change in the middle of it.
func TestOneDecisionARequest(t *testing.T) {
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wait") != "" {
			entered <- struct{}{}
			<-leave
		}
		fmt.Fprint(w, "checked")
	}))
	t.Cleanup(auth.Close)
	c := serve(t, site+`
	route {
		feature_flags {
			context {
				user_id header X-User-ID
			}
		}
		@before feature new_ui
		header @before X-Before on
		forward_auth AUTH {
			uri /check
		}
		@after feature new_ui
		header @after X-After on
		feature_route new_ui {
			on {
				reverse_proxy NEW OLD {
					lb_policy feature new_ui {
						on NEW
						off OLD
					}
				}
			}
			off {
				reverse_proxy OLD
			}
		}
	}
}`, onlyAlice, map[string]string{"AUTH": host(auth), "NEW": host(echo(t, "new")), "OLD": host(echo(t, "old"))})
	answer := make(chan reply, 1)
	go func() {
		r, _ := try(c.url(0), "X-User-ID", "alice", "X-Wait", "yes")
		answer <- r
	}()
	<-entered
	c.write("features.json", strings.Replace(onlyAlice, "true", "false", 1))
	eventually(t, 5*time.Second, "the change is in force", func() bool { return c.guard("new_ui").Status == "inactive" })
	c.api("POST", "flags/new_ui/disable", "", 200)
	close(leave)
	r := <-answer
	got := r.echoed(t)
	if got.Name != "new" || got.Header.Get("X-Feature-New-Ui") != "on" || r.header.Get("X-Before") != "on" || r.header.Get("X-After") != "on" {
		t.Errorf("a request under way: upstream %s, told %q, before %q, after %q; want on throughout",
			got.Name, got.Header.Get("X-Feature-New-Ui"), r.header.Get("X-Before"), r.header.Get("X-After"))
	}
	r = c.get("/", "X-User-ID", "alice")
	if got := r.echoed(t); got.Name != "old" || got.Header.Get("X-Feature-New-Ui") != "off" || r.header.Get("X-Before")+r.header.Get("X-After") != "" {
		t.Errorf("the next request: upstream %s, told %q, %v; want off throughout", got.Name, got.Header.Get("X-Feature-New-Ui"), r.header)
	}
}
