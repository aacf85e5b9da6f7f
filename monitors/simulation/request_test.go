package simulation_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

func seconds(f float64) *float64 { return &f }

func TestParseRequest(t *testing.T) {
	type request = simulation.Request
	for _, c := range []struct {
		name, line string
		want       request
	}{
		{
			"every field", `{"t": 12.345, "user": "u17", "canary": true, "status": 200, "ttfb": 0.052, "duration": 0.06, "outcome": "ok", "epoch": 3}`,
			request{T: 12.345, User: "u17", Canary: true, Status: 200, FirstByte: seconds(0.052), Duration: seconds(0.06), Outcome: simulation.OK, Epoch: "3"},
		},
		{"the time alone", `{"t": 0}`, request{}},
		{"nulls", `{"t": 1, "user": null, "canary": null, "status": null, "ttfb": null, "duration": null, "outcome": null, "epoch": null}`, request{T: 1}},
		{"zeros", `{"t": 1, "user": "", "status": 0, "ttfb": 0, "duration": 0, "outcome": "", "epoch": ""}`, request{T: 1, FirstByte: seconds(0), Duration: seconds(0)}},
		{"numbers for names", `{"t": 1, "user": 17, "epoch": 2.50}`, request{T: 1, User: "17", Epoch: "2.50"}},
		{"names", `{"t": 1, "user": "17", "epoch": "2.50"}`, request{T: 1, User: "17", Epoch: "2.50"}},
		{"an epoch in words", `{"t": 1, "epoch": "rev \"a\""}`, request{T: 1, Epoch: `rev "a"`}},
		{"a large number for a name", `{"t": 1, "user": 9007199254740993}`, request{T: 1, User: "9007199254740993"}},
		{"a clock", `{"t": 1767225600.25}`, request{T: 1767225600.25}},
		{"before the clock began", `{"t": -0.5}`, request{T: -0.5}},
		{"unknown fields", `{"t": 1, "path": {"a": [1]}}`, request{T: 1}},
		{"spaces", " \t{ \"t\" : 1 } \r\n", request{T: 1}},
		{"error", `{"t": 1, "outcome": "error"}`, request{T: 1, Outcome: simulation.Error}},
		{"aborted", `{"t": 1, "outcome": "aborted"}`, request{T: 1, Outcome: simulation.Aborted}},
		{"client gone", `{"t": 1, "outcome": "client_gone"}`, request{T: 1, Outcome: simulation.ClientGone}},
		{"unfinished", `{"t": 1, "outcome": "unfinished"}`, request{T: 1, Outcome: simulation.Unfinished}},
	} {
		got, err := simulation.ParseRequest([]byte(c.line))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

func TestParseRequestMistakes(t *testing.T) {
	for line, want := range map[string]string{
		``:                                  "want a JSON object: EOF",
		`{"t": 1`:                           "want a JSON object: unexpected EOF",
		`t=1`:                               "want a JSON object: invalid character '=' in literal true (expecting 'r')",
		`{"t": NaN}`:                        "want a JSON object: invalid character 'N' looking for beginning of value",
		`{"t": 1} {"t": 2}`:                 "want one JSON object a line: text after it",
		`{"t": 1},`:                         "want one JSON object a line: text after it",
		`null`:                              "want a JSON object: got null",
		`{"user": "a"}`:                     "t: is missing; want the time of arrival in seconds",
		`{"t": null}`:                       "t: is missing; want the time of arrival in seconds",
		`{"t": 1767225600000}`:              "t: want seconds, got 1.7672256e+12",
		`{"t": 1, "ttfb": 1e12}`:            "ttfb: want seconds, got 1e+12",
		`{"t": 1, "duration": -2e11}`:       "duration: want seconds, got -2e+11",
		`{"t": 1, "outcome": "OK"}`:         `outcome: want ok, error, aborted, client_gone or unfinished, got "OK"`,
		`{"t": 1, "outcome": "Aborted\n7"}`: `outcome: want ok, error, aborted, client_gone or unfinished, got "Aborted\n7"`,
	} {
		if _, err := simulation.ParseRequest([]byte(line)); err == nil || err.Error() != want {
			t.Errorf("%s: %q, want %q", line, err, want)
		}
	}
}

// Of a value of the wrong kind the text names the field, and no type of Go's.
func TestParseRequestKinds(t *testing.T) {
	for line, want := range map[string]string{
		`[1]`: "want a JSON object", `7`: "want a JSON object", `"t"`: "want a JSON object",
		`{"t": "1"}`: "t: want ", `{"t": 1e400}`: "t: want ", `{"t": 1, "ttfb": [0.1]}`: "ttfb: want ", `{"t": 1, "duration": "1s"}`: "duration: want ",
		`{"t": 1, "canary": "yes"}`: "canary: want ", `{"t": 1, "status": "200"}`: "status: want ", `{"t": 1, "outcome": 3}`: "outcome: want ",
	} {
		t.Run(line, func(t *testing.T) {
			_, err := simulation.ParseRequest([]byte(line))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("%v, want %q", err, want)
			}
			if text := err.Error(); !strings.HasPrefix(text, want) || strings.Contains(text, "float64") || strings.Contains(text, " int") || strings.Contains(text, "simulation.") || strings.Contains(text, "bool,") {
				t.Errorf("%q, want %q and no type of Go's", text, want)
			}
		})
	}
}

// An epoch may be any text.
func TestRequestIsEncoded(t *testing.T) {
	for _, epoch := range []string{"", "7", "2.50", "v2"} {
		t.Run(epoch, func(t *testing.T) {
			text, err := json.Marshal(simulation.Request{T: 1, Epoch: string(epoch)})
			if err != nil {
				t.Fatal(err)
			}
			if q, err := simulation.ParseRequest(text); err != nil || string(q.Epoch) != epoch {
				t.Errorf("%s: epoch %q, %v", text, q.Epoch, err)
			}
		})
	}
}

// FuzzParseRequest: what is read is the same when it is written and read again,
// and plays.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		`{"t": 12.345, "user": "u17", "canary": true, "status": 200, "ttfb": 0.052, "duration": 0.06, "outcome": "ok", "epoch": 3}`,
		`{"t": 1e11, "ttfb": 1e11, "duration": 1e-11, "outcome": "unfinished"}`, `{"t": -1e11, "duration": 1e11, "status": 503}`,
		`{"t": 0, "user": null, "epoch": "x", "outcome": "aborted", "ttfb": -1}`, `{"t": 1, "user": {"\ud800": 1}, "outcome": "client_gone"}`,
		`{"T": 1, "t": null}`, `[{"t": 1}]`, `null`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := simulation.ParseRequest(line)
		if err != nil {
			if err.Error() == "" {
				t.Error("no text")
			}
			return
		}
		same := q
		if _, err := json.Marshal(q.Epoch); err != nil {
			same.Epoch = "" // see TestRequestIsEncoded
		}
		if utf8.ValidString(q.User) { // else it was no string
			text, err := json.Marshal(same)
			if err != nil {
				t.Fatalf("%+v: %v", same, err)
			}
			if again, err := simulation.ParseRequest(text); err != nil || !reflect.DeepEqual(again, same) {
				t.Errorf("%s: %+v, %v; want %+v", text, again, err, same)
			}
		}
		r := simulation.NewReplay(defaults(0.1))
		for range 2 {
			if err := r.Add(q); err != nil {
				t.Errorf("the same request again: %v", err)
			}
		}
		got := r.Finish()
		n, bad := got.ControlRequests, got.ControlBad
		if q.Canary {
			n, bad = got.CanaryRequests, got.CanaryBad
		}
		if n != 2 || n != got.CanaryRequests+got.ControlRequests || bad != got.CanaryBad+got.ControlBad || bad != 0 && bad != 2 || got.Verdict == monitors.Trip {
			t.Errorf("%+v", got)
		}
	})
}

// What the guard takes a request for: of 60 of the canary that end alike, all are
// bad or none.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		outcome simulation.Outcome
		status  int
		counts  bool
		bad     bool
	}{
		{"", 0, true, false},
		{"", 200, true, false},
		{"", 404, true, false},
		{"", 499, true, false},
		{"", 500, true, true},
		{"", 599, true, true},
		{simulation.OK, 200, true, false},
		{simulation.OK, 503, true, false},
		{simulation.Error, 0, true, true},
		{simulation.Error, 200, true, true},
		{simulation.Error, 502, true, true},
		{simulation.Aborted, 200, true, true},
		{simulation.ClientGone, 0, false, false},
		{simulation.ClientGone, 500, false, false},
	} {
		p := playAll(t, defaults(0.25), traffic{length: 30, respond: func(q *simulation.Request) {
			if q.Canary {
				q.Outcome, q.Status = c.outcome, c.status
			}
		}})
		if tripped := p.Verdict == monitors.Trip; tripped != c.bad || p.ControlBad > 0 || (p.CanaryBad > 0) != c.bad {
			t.Errorf("%q with status %d: %+v", c.outcome, c.status, p.Result)
		}
		if last := p.lines[len(p.lines)-1]; !c.bad && (last.Canary.Requests > 0) != c.counts {
			t.Errorf("%q with status %d: %+v", c.outcome, c.status, last)
		}
	}
}
