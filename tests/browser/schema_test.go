package browser

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// fits checks a text against a part of testdata/ofrep.schema.json.
func fits(t *testing.T, part, text string) error {
	t.Helper()
	file, err := os.Open("testdata/ofrep.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	document, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("ofrep.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("ofrep.schema.json#/$defs/" + part)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// Every kind of answer is one that the protocol has.
func TestAnswersFitTheProtocol(t *testing.T) {
	s := serve(t, shop, shopFlags, map[string]string{"OPTIONS": "max_body 1KB", "NEW": "127.0.0.1:1"})
	const all = "/ofrep/v1/evaluate/flags"
	contexts := []string{`{"targetingKey": "alice", "region": "RO", "plan": "gold"}`, `{"targetingKey": "bob"}`, `{}`, `{"targetingKey": 7, "a": [1, {"b": null}]}`}
	var flags map[string]any
	if err := json.Unmarshal([]byte(shopFlags), &flags); err != nil {
		t.Fatal(err)
	}
	for _, context := range contexts {
		body := `{"context": ` + context + `}`
		r := s.do(http.MethodPost, s.site+all, body)
		if err := fits(t, "bulk", r.body); err != nil || r.status != 200 {
			t.Errorf("all for %s: %d %v\n%s", context, r.status, err, r.body)
		}
		for key := range flags {
			r := s.do(http.MethodPost, s.site+all+"/"+key, body)
			part := map[int]string{200: "success", 400: "failure", 404: "notFound"}[r.status]
			if err := fits(t, part, r.body); err != nil || key == "hidden" && r.status != 404 {
				t.Errorf("%s for %s: %d %v\n%s", key, context, r.status, err, r.body)
			}
		}
	}
	for _, c := range []struct {
		path, body, part string
		status           int
	}{
		{"/split", "{", "failure", 400},
		{"/split", `{"context": 1}`, "failure", 400},
		{"/split", strings.Repeat(" ", 2000), "failure", 413},
		{"/nosuch", "", "notFound", 404},
		{"", "{", "bulkFailure", 400},
		{"", `{"context": []}`, "bulkFailure", 400},
		{"", strings.Repeat(" ", 2000), "bulkFailure", 413},
	} {
		r := s.do(http.MethodPost, s.site+all+c.path, c.body)
		if err := fits(t, c.part, r.body); err != nil || r.status != c.status {
			t.Errorf("%s with %.20q: %d %v\n%s", c.path, c.body, r.status, err, r.body)
		}
	}
	if r := s.do(http.MethodGet, s.site+"/ofrep/v1/events?token=x", ""); r.status != 401 || fits(t, "trouble", r.body) != nil {
		t.Errorf("a bad token: %d %s", r.status, r.body)
	}

	// The stream's events, and the schema itself: what it is to refuse, it does.
	var bulk struct {
		EventStreams []struct{ Endpoint struct{ RequestURI string } }
	}
	if err := json.Unmarshal([]byte(s.do(http.MethodPost, s.site+all, "").body), &bulk); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(s.site + bulk.EventStreams[0].Endpoint.RequestURI)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && lines.Text() != "" { // the greeting
	}
	s.api("POST", "flags/new_look/disable", "{}")
	var event []string
	for lines.Scan() && lines.Text() != "" {
		event = append(event, lines.Text())
	}
	if len(event) != 3 || event[0] != "event: message" || !strings.HasPrefix(event[1], "id: ") || fits(t, "event", strings.TrimPrefix(event[2], "data: ")) != nil {
		t.Errorf("event %q", event)
	}
	for part, bad := range map[string]string{
		"success": `{"key": "a", "reason": "ERROR"}`, "failure": `{"errorCode": "GENERAL"}`, "bulk": `{"flags": [{"key": "a", "reason": "STATIC", "value": [1]}]}`,
		"eventStream": `{"type": "sse"}`, "event": `{"type": "other"}`,
	} {
		if fits(t, part, bad) == nil {
			t.Errorf("%s fits %s", bad, part)
		}
	}
}
