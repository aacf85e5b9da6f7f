package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// A request that is traced carries an event for each decision, in the words of
// OpenTelemetry's conventions; few flags and many.
func TestTraces(t *testing.T) {
	for name, flags := range map[string]string{"few flags": onlyAlice, "many flags": manyFlags} {
		t.Run(name, func(t *testing.T) {
			spans.Reset()
			c := serve(t, site+"route {\nmisbehave traced\n"+userContext+`
				feature_route new_ui {
					on {
						respond "{http.feature_flags.new_ui}"
					}
				}
			}
		}`, flags, nil)
			if r := c.get("/", "X-User-ID", "alice"); r.body != "on" {
				t.Fatalf("%q", r.body)
			}
			var ended []sdktrace.ReadOnlySpan
			eventually(t, 5*time.Second, "a span", func() bool { ended = spans.Ended(); return len(ended) == 1 })
			told := map[string]string{}
			for _, event := range ended[0].Events() {
				if event.Name != "feature_flag.evaluation" {
					t.Errorf("event %q", event.Name)
				}
				attributes := map[string]string{}
				for _, a := range event.Attributes {
					attributes[string(a.Key)] = a.Value.AsString()
				}
				key := attributes["feature_flag.key"]
				if told[key] != "" {
					t.Errorf("%s is told twice", key)
				}
				told[key] = fmt.Sprint(attributes["feature_flag.result.variant"], " ", attributes["feature_flag.result.reason"])
				if text := fmt.Sprint(attributes); strings.Contains(text, "alice") {
					t.Errorf("a person in the trace: %s", text)
				}
			}
			want := map[string]string{"new_ui": "on targeting_match"}
			if flags == manyFlags {
				want["a"], want["j"], want["2nd"] = "on static", "on static", "off disabled"
				if len(told) != 12 {
					t.Errorf("%d flags told, want 12: %v", len(told), told)
				}
			}
			for key, value := range want {
				if told[key] != value {
					t.Errorf("%s: %q, want %q", key, told[key], value)
				}
			}
		})
	}
}
