package tests

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// toldBy is a site whose application is told of the flags in such headers.
func toldBy(headers string) string {
	return `
http://:0 {
	bind 127.0.0.1
	feature_flags {
		context {
			user_id header X-User-ID
		}
		` + headers + `
	}
	reverse_proxy APP
}
`
}

// Flags that an application is only told of, many at once, are guarded each on its
// own: one that fails, one that hangs, and the others that do neither.
func TestGuardOfToldFlags(t *testing.T) {
	var onset atomic.Bool
	app := upstream(t, "app", func(w http.ResponseWriter, r *http.Request) bool {
		on := func(flag string) bool {
			for part := range strings.SplitSeq(r.Header.Get("X-Features"), ", ") {
				if part == flag {
					return true
				}
			}
			return false
		}
		switch {
		case onset.Load() && on("hangs"):
			<-r.Context().Done()
			return true
		case onset.Load() && on("fails"):
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	})
	features := []string{
		`"fails": {"active": true, "percentage_rollout": 10}`,
		`"hangs": {"active": true, "percentage_rollout": 5, "guard": {"latency": {"warm_up": "1s"}}}`,
	}
	for i := range 6 {
		features = append(features, fmt.Sprintf(`"well_%d": {"active": true, "percentage_rollout": %d, "guard": {"latency": {"warm_up": "1s"}}}`, i, 10*i+5))
	}
	c := start(t, global+toldBy("headers list X-Features"), "{"+strings.Join(features, ",")+"}", map[string]string{"APP": host(app)})
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		crowd(c.url(0), &rehearsal{flag: "fails", share: 10, rate: 300}, stop)
	}()
	defer func() { close(stop); <-ended }()
	status := func() map[string]string {
		out := map[string]string{}
		for _, v := range c.api("GET", "flags", "", 200)["flags"].([]any) {
			out[v.(map[string]any)["name"].(string)] = v.(map[string]any)["status"].(string)
		}
		return out
	}
	time.Sleep(3 * time.Second) // a healthy time
	for name, is := range status() {
		if is != "split" {
			t.Fatalf("%s is %s while nothing is wrong", name, is)
		}
	}
	onset.Store(true)
	eventually(t, 20*time.Second, fmt.Sprintf("%v: want both that are bad tripped", status()), func() bool {
		now := status()
		return now["fails"] == "tripped" && now["hangs"] == "tripped"
	})
	time.Sleep(2 * time.Second)
	for name, is := range status() {
		if strings.HasPrefix(name, "well") && is != "split" {
			t.Errorf("%s is %s: nothing is wrong with it", name, is)
		}
	}
	flag := c.api("GET", "flags/fails", "", 200)
	evidence := flag["state"].(map[string]any)["trips"].([]any)[0].(map[string]any)["evidence"].(map[string]any)
	if last, _ := evidence["last_failing"].([]any); len(last) == 0 {
		t.Errorf("evidence without failing requests: %v", evidence)
	}
	t.Log(evidence["summary"])
}

// A flag of an exclusive group is compared among those for whom no other flag of
// the group comes first, however it is asked for.
func TestGuardOfExclusiveFlags(t *testing.T) {
	const users = 500
	definitions := `"mine": {"active": true, "percentage_rollout": 30, "exclusive": "banner"},
		"other": {"active": true, "exclusive": "banner"}`
	many := definitions
	for i := range 4 {
		many += fmt.Sprintf(`, "more_%d": {"active": true}`, i)
	}
	doc, err := evaluator.Decode("features.json", []byte("{"+definitions+"}"))
	if err != nil {
		t.Fatal(err)
	}
	program, err := evaluator.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	rules := program.With(nil)
	var want [2]float64
	var e evaluator.Evaluation
	for k := range users {
		c := &evaluator.Context{}
		c.Set(evaluator.UserID, evaluator.String(fmt.Sprintf("u%d", k)))
		e.Reset(rules, c, time.Now())
		if d := e.Decide(0); d.Enabled {
			want[1]++
		} else if d.Reason == evaluator.ReasonSplit && e.Contends(0) {
			want[0]++
		}
	}
	for name, test := range map[string]struct{ features, site string }{
		"one by one": {definitions, "headers X-Feature-"},
		"in bulk":    {many, "headers list X-Features"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, global+toldBy(test.site), "{"+test.features+"}", map[string]string{"APP": host(upstream(t, "app", nil))})
			for k := range users {
				if _, err := try(c.url(0), "X-User-ID", fmt.Sprintf("u%d", k)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, 5*time.Second, fmt.Sprintf("want %v of control and canary", want), func() bool {
				test, ok := c.api("GET", "flags/mine", "", 200)["guard"].(map[string]any)["test"].(map[string]any)
				if !ok {
					return false // nobody has been judged yet
				}
				requests := func(cohort string) any { return test[cohort].(map[string]any)["requests"] }
				return requests("control") == want[0] && requests("canary") == want[1]
			})
		})
	}
}
