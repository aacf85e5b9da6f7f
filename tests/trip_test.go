package tests

import (
	"net/http"
	"strings"
	"testing"
)

const canarySite = global + `
http://:0 {
	bind 127.0.0.1
	feature_flags {
		context {
			user_id header X-User-ID
			user_id sticky
		}
	}
	feature_route new_ui {
		on {
			reverse_proxy NEW
		}
		off {
			reverse_proxy OLD
		}
	}
}
`

func TestErrorThresholdTrips(t *testing.T) {
	broken := upstream(t, "new", func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("fail") {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	})
	c := start(t, canarySite, `{"new_ui": {"active": true, "users": ["alice"], "percentage_rollout": 0, "error_threshold": 5}}`,
		map[string]string{"NEW": host(broken), "OLD": host(upstream(t, "old", nil))})

	if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "new\n") || !strings.Contains(r.body, "X-Feature-New-Ui: on") {
		t.Fatalf("a listed user got %q", r.body)
	}
	if r := c.get("/", "X-User-ID", "bob"); !strings.HasPrefix(r.body, "old\n") || !strings.Contains(r.body, "X-Feature-New-Ui: off") {
		t.Fatalf("another user got %q", r.body)
	}
	for i := range 6 {
		if r := c.get("/?fail", "X-User-ID", "alice"); r.status != http.StatusInternalServerError {
			t.Fatalf("failing request %d: status %d, want 500: tripped too early", i+1, r.status)
		}
	}
	// The seventh is the next request after the trip.
	if r := c.get("/?fail", "X-User-ID", "alice"); r.status != http.StatusOK || !strings.HasPrefix(r.body, "old\n") {
		t.Fatalf("after the trip: status %d, %q", r.status, r.body)
	}
	flag := c.api("GET", "flags/new_ui", "", 200)
	if flag["status"] != "tripped" {
		t.Errorf("status %v, want tripped", flag["status"])
	}
	trips := flag["state"].(map[string]any)["trips"].([]any)
	evidence := trips[0].(map[string]any)["evidence"].(map[string]any)
	if len(trips) != 1 || evidence["test"] != "errors" || evidence["found"] != 6.0 || len(evidence["last_failing"].([]any)) != 6 {
		t.Errorf("trips: %v", trips)
	}

	// A reload does not re-arm it, a reset does.
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "old\n") {
		t.Errorf("after a reload: %q, want the old one", r.body)
	}
	c.api("POST", "flags/new_ui/reset", `{"reason": "fixed", "by": "operator"}`, 200)
	if r := c.get("/", "X-User-ID", "alice"); !strings.HasPrefix(r.body, "new\n") {
		t.Errorf("after the reset: %q, want the new one", r.body)
	}
}
