package webhook

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden bodies anew")

var when = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

// samples are events that bodies are made of.
func samples() map[string]Event {
	all := map[string]Event{
		"tripped_full": {
			ID: "evt_full", Type: Tripped, Flag: "checkout_v2", By: "guard", Reason: "errors: 12 of 40 canary requests, 3 of 400 others",
			Time: when, Instance: "edge 1/a", Data: json.RawMessage(`{ "canary": {"requests": 40, "bad": 12} }`),
		},
		"tripped_hostile": {
			ID: "evt_hostile", Type: Tripped, Flag: "a<b>&*c*`d`\n\x00", By: "<!channel>", Time: when,
			Reason: "<https://evil.example|click> @here & \x00\x1b[31m \"quoted\" \u2028 \xff", Instance: "../%2f?x#y",
			Data: json.RawMessage(`{"text":"` + "```" + `<!here>&"}`),
		},
		"reload_failed": {ID: "evt_reload", Type: ReloadFailed, Reason: "features.json:14:9: unknown field", Time: when},
		"unknown":       {ID: "evt_unknown", Type: "feature_flags.sung", Flag: "x", Time: when},
	}
	for _, name := range types {
		short := strings.TrimPrefix(name, "feature_flags.")
		all[short] = Event{ID: "evt_" + short, Type: name, Flag: "checkout_v2", By: "ops", Time: when, Instance: "edge-1"}
	}
	return all
}

// TestGoldenBodies compares with webhook/testdata; go test -update writes it.
func TestGoldenBodies(t *testing.T) {
	for name, e := range samples() {
		for _, f := range []Format{CloudEvents, Slack, PagerDuty} {
			t.Run(name+"/"+string(f), func(t *testing.T) {
				body := render(f, e.clean(when))
				if f == PagerDuty {
					body = seal(body, "0123456789abcdef0123456789abcdef")
				}
				wantSound(t, f, body)
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, body, "", "  "); err != nil {
					t.Fatal(err)
				}
				pretty.WriteByte('\n')
				path := filepath.Join("testdata", string(f), name+".json")
				if *update {
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if want := read(t, path); !bytes.Equal(pretty.Bytes(), want) {
					t.Errorf("got\n%s\nwant\n%s", pretty.Bytes(), want)
				}
			})
		}
	}
}

// wantSound checks a body against the rules of its format.
func wantSound(t testing.TB, f Format, body []byte) {
	t.Helper()
	if len(body) > MaxBody || !utf8.Valid(body) || !json.Valid(body) {
		t.Fatalf("%s: %d bytes, valid UTF-8 %v, JSON %v", f, len(body), utf8.Valid(body), json.Valid(body))
	}
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	for _, problem := range map[Format]func(map[string]any) []string{
		CloudEvents: cloudEventsProblems, Slack: slackProblems, PagerDuty: pagerDutyProblems,
	}[f](v) {
		t.Errorf("%s: %s: %.2000s", f, problem, body)
	}
}

type problems []string

func (p *problems) check(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Sprintf(format, args...))
	}
}

func isText(v any) bool {
	s, ok := v.(string)
	return ok && s != ""
}

func cloudEventsProblems(v map[string]any) []string {
	var p problems
	for _, key := range []string{"id", "source", "type"} {
		p.check(isText(v[key]), "%s is %v", key, v[key])
	}
	p.check(v["specversion"] == "1.0", "specversion is %v", v["specversion"])
	if subject, ok := v["subject"]; ok {
		p.check(isText(subject), "subject is %v", subject)
	}
	source, _ := v["source"].(string)
	u, err := url.Parse(source)
	p.check(err == nil && strings.HasPrefix(source, "/caddy-feature-flags") && u.RawQuery == "" && u.Fragment == "", "source is %q", source)
	at, _ := v["time"].(string)
	_, err = time.Parse(time.RFC3339, at)
	p.check(err == nil, "time: %v", err)
	for _, key := range []string{"id", "source", "type", "subject"} {
		text, _ := v[key].(string)
		p.check(!strings.ContainsFunc(text, unicode.IsControl), "%s has a control character", key)
	}
	for key := range v { // Attribute names are lower-case letters and digits.
		p.check(regexp.MustCompile(`^[a-z0-9]{1,20}$`).MatchString(key), "attribute %q", key)
	}
	return p
}

func slackProblems(v map[string]any) []string {
	var p problems
	text, _ := v["text"].(string)
	p.check(text != "", "text is missing")
	bare := regexp.MustCompile(`[<>]|&([^algt]|$)`)
	p.check(!bare.MatchString(text), "text is not escaped")
	blocks, _ := v["blocks"].([]any)
	p.check(len(blocks) >= 1 && len(blocks) <= 50, "%d blocks", len(blocks))
	for _, b := range blocks {
		block, _ := b.(map[string]any)
		var texts []any
		switch block["type"] {
		case "section":
			texts = []any{block["text"]}
		case "context":
			texts, _ = block["elements"].([]any)
			p.check(len(texts) >= 1 && len(texts) <= 10, "%d elements", len(texts))
		default:
			p.check(false, "block of type %v", block["type"])
		}
		for _, item := range texts {
			item, _ := item.(map[string]any)
			text, _ := item["text"].(string)
			units := len(utf16.Encode([]rune(text)))
			p.check(item["type"] == "mrkdwn" && units >= 1 && units <= 3000, "text of %d characters, type %v", units, item["type"])
			p.check(!bare.MatchString(text), "text is not escaped: %.100q", text)
			p.check(!regexp.MustCompile(`&(a|am|amp|l|lt|g|gt)?(…|$)`).MatchString(text), "an escape is cut: %q", text[max(0, len(text)-20):])
			p.check(strings.Count(text, "```")%2 == 0, "an open fence")
		}
	}
	return p
}

func pagerDutyProblems(v map[string]any) []string {
	var p problems
	p.check(isText(v["routing_key"]), "no routing key")
	key, _ := v["dedup_key"].(string)
	p.check(key != "" && utf8.RuneCountInString(key) <= 255, "dedup_key of %d characters", len(key))
	switch v["event_action"] {
	case "resolve":
		return p
	case "trigger":
	default:
		p.check(false, "event_action is %v", v["event_action"])
	}
	payload, _ := v["payload"].(map[string]any)
	summary, _ := payload["summary"].(string)
	p.check(summary != "" && utf8.RuneCountInString(summary) <= 1024, "summary of %d characters", utf8.RuneCountInString(summary))
	p.check(isText(payload["source"]), "source is %v", payload["source"])
	severity, _ := payload["severity"].(string)
	p.check(regexp.MustCompile("^(critical|error|warning|info)$").MatchString(severity), "severity is %q", severity)
	at, _ := payload["timestamp"].(string)
	_, err := time.Parse(time.RFC3339, at)
	p.check(err == nil, "timestamp: %v", err)
	_, ok := payload["custom_details"].(map[string]any)
	p.check(ok, "custom_details are %v", payload["custom_details"])
	return p
}

// TestBodiesAreBounded renders texts and data of every kind and size.
func TestBodiesAreBounded(t *testing.T) {
	long := map[string]string{
		"ascii":   "x",
		"escaped": "&",
		"control": "\x01",
		"quotes":  `"`,
		"emoji":   "🚀",
		"invalid": "\xff",
		"fences":  "```",
		"mixed":   "a&🚀<",
	}
	for name, piece := range long {
		for _, n := range []int{1, 900, 1023, 2990, 2999, 3000, 3001, 5000, 200_000} {
			text := strings.Repeat(piece, n)
			data := marshal(map[string]string{"text": text})
			e := Event{ID: "e", Type: Tripped, Flag: text, By: text, Reason: text, Instance: text, Data: data, Time: when}.clean(when)
			for _, f := range []Format{CloudEvents, Slack, PagerDuty} {
				body := render(f, e)
				if f == PagerDuty {
					body = seal(body, strings.Repeat("k", maxRoutingKey))
				}
				wantSound(t, f, body)
				if f == CloudEvents && n == 200_000 && !bytes.Contains(body, []byte(`"details":{"note":"left out: `)) {
					t.Errorf("%s: no note on %d bytes of data: %.300s", name, len(data), body)
				}
			}
		}
	}
}

func TestDataThatIsNone(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"none", ``, ``},
		{"object", ` {"a" : [1, "<x>"] } `, `{"a":[1,"<x>"]}`},
		{"no JSON", `{"a":`, `{"note":"left out: is no JSON"}`},
		{"two values", `1 2`, `{"note":"left out: is no JSON"}`},
		{"too deep", strings.Repeat("[", 20_000), `{"note":"left out: is no JSON"}`},
		{"too large", `"` + strings.Repeat("x", MaxBody) + `"`, `{"note":"left out: 65538 bytes, a body takes 65536 at most"}`},
		{"invalid UTF-8", "\"a\xffb\"", "\"a\uFFFDb\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string((Event{Data: json.RawMessage(c.data)}).clean(when).Data); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := Event{}.clean(when).ID
		if !isID(id) || len(id) < 26 || seen[id] { // 26 characters of base32: 130 random bits.
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	for _, id := range []string{"a.b", "a b", "a\r\nX: y", strings.Repeat("x", 129), "é"} {
		got := Event{ID: id}.clean(when).ID
		if !isID(got) || len(got) != 64 || got != (Event{ID: id}).clean(when).ID {
			t.Errorf("%q became %q", id, got)
		}
	}
	if got := (Event{ID: "evt_1-A"}).clean(when).ID; got != "evt_1-A" {
		t.Errorf("a good id became %q", got)
	}
}

// TestOneIncidentForAFleet has what opens a flag's incident on one instance closed by another one, and one of a disk by
// its own only.
func TestOneIncidentForAFleet(t *testing.T) {
	key := func(eventType, flag, instance string) string {
		body := render(PagerDuty, Event{Type: eventType, Flag: flag, Instance: instance}.clean(when))
		var v struct {
			Key string `json:"dedup_key"`
		}
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatal(err)
		}
		return v.Key
	}
	for _, flag := range []string{"a", "", strings.Repeat("long ", 50)} {
		if key(Tripped, flag, "one") != key(Reset, flag, "two") {
			t.Errorf("%q: tripped %q, reset %q", flag, key(Tripped, flag, "one"), key(Reset, flag, "two"))
		}
		if key(Degraded, flag, "one") != key(Recovered, flag, "one") || key(Degraded, flag, "one") == key(Recovered, flag, "two") || key(Degraded, flag, "one") == key(Tripped, flag, "one") {
			t.Errorf("%q: degraded %q, recovered %q", flag, key(Degraded, flag, "one"), key(Recovered, flag, "one"))
		}
	}
	aside := func(id string) string {
		return string(render(PagerDuty, Event{ID: id, Type: Degraded, Data: json.RawMessage(`{"degraded": false}`)}.clean(when)))
	}
	if !strings.Contains(aside("1"), "/event/1") || !strings.Contains(aside("2"), `"trigger"`) {
		t.Errorf("what nothing follows opens the incident that a recovery closes: %s", aside("1"))
	}
	held := key(Held, "a", "")
	if key(Tripped, "a", "") == key(Tripped, "b", "") || key(Held, "a", "") == held {
		t.Error("different incidents have one key")
	}
}

func TestTimesThatNoFormatCanWrite(t *testing.T) {
	for _, at := range []time.Time{{}, time.Date(12_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got := (Event{Time: at}).clean(when).Time; !got.Equal(when) {
			t.Errorf("%v became %v", at, got)
		}
	}
	zone := time.FixedZone("far", 5*3600+1)
	if got := (Event{Time: when.In(zone)}).clean(when).Time; got != when {
		t.Errorf("got %v", got)
	}
}
