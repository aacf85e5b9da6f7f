package evaluator

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func decodeText(tb testing.TB, name, text string) *Document {
	tb.Helper()
	doc, err := Decode(name, []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return doc
}

const wholeJSON = `{
	"$schema": "https://example.com/features.schema.json",
	"version": 1,
	"segments": {
		"eu": "region in ['RO', 'DE']",
		"staff": {"users": ["ana", 7], "when": "role == 'staff'", "description": "who works here"}
	},
	"flags": {
		"checkout_v2": {
			"active": true,
			"environments": ["production", "staging"],
			"activation_date": "2026-01-31T12:00:00+02:00",
			"deactivation_date": "2026-12-31",
			"depends_on": {"new_cart": true, "colour": "blue"},
			"users": [7, "ana", true, 1.50],
			"regions": ["RO"], "account_types": ["premium"], "devices": ["mobile"], "beta_program": true,
			"rules": [
				{"name": "staff", "when": "segment('staff')", "serve": "blue"},
				{"when": "region == 'RO'", "serve": {"blue": 12.5, "off": 87.5}},
				{"when": true}
			],
			"percentage_rollout": 12.345,
			"hash_by": "company", "salt": "pepper",
			"variants": {"blue": {"weight": 30, "value": {"b": [1, null, 1.0]}}, "red": {"weight": 70}},
			"client": true, "fallback_for": "new_cart", "exclusive": "banner",
			"error_threshold": 5, "performance_baseline": 0.25, "performance_threshold": 10, "traffic_drop_threshold": 30,
			"guard": {
				"false_alarm": 0.001, "errors": {"tolerate_ratio": 1.5, "tolerate": "0.1%", "match": [{"header": {"X-Error": "*"}, "status": 200}, {"status": [404, 410]}]},
				"latency": {"tolerate": "20%", "warm_up": "2m"}, "traffic": "trip", "settle": "500ms", "user_epoch": "2d", "min_users": 5, "cool_down": "10m", "rearm": "edit"
			},
			"rollout": {"steps": [1, 5.5, 100], "bake": "10m", "min_requests": 1000, "approve": [100]},
			"metadata": {"description": "the new checkout", "owner": "web", "type": "release", "expires": "2026-09-01", "tickets": [1, 2]}
		},
		"new_cart": {"active": false, "guard": false},
		"colour": {"active": true, "depends_on": ["new_cart"], "guard": {"errors": false, "latency": false, "traffic": false}, "variants": {"blue": {"weight": 0}, "on": {"weight": 100}}}
	}
}`

const wholeYAML = `# the same in YAML
$schema: https://example.com/features.schema.json
version: 1
segments:
  eu: region in ['RO', 'DE']
  staff:
    users: [ana, 7]
    when: role == 'staff'
    description: who works here
flags:
  checkout_v2:
    active: true
    environments: [production, staging]
    activation_date: 2026-01-31T12:00:00+02:00
    deactivation_date: 2026-12-31
    depends_on:
      new_cart: true
      colour: blue
    users: [0x7, ana, true, 1.50]
    regions:
      - RO
    account_types: [premium]
    devices: ["mobile"]
    beta_program: True
    rules:
      - name: staff
        when: segment('staff')
        serve: blue
      - when: |-
          region == 'RO'
        serve: {blue: 12.5, off: 87.5}
      - when: true
    percentage_rollout: 1.2345e1
    hash_by: company
    salt: pepper
    variants:
      blue: {weight: 3_0, value: {b: [1, null, 1.0]}}
      red: {weight: +70}
    client: true
    fallback_for: new_cart
    exclusive: banner
    error_threshold: 5
    performance_baseline: .25
    performance_threshold: 1e1
    traffic_drop_threshold: 30.
    guard:
      false_alarm: 1e-3
      errors:
        tolerate_ratio: 1.5
        tolerate: 0.1%
        match:
          - header: {X-Error: "*"}
            status: 200
          - status: [404, 410]
      latency: {tolerate: 20%, warm_up: 2m}
      traffic: trip
      settle: 500ms
      user_epoch: 2d
      min_users: 5
      cool_down: 10m
      rearm: edit
    rollout: {steps: [1, 5.5, 100], bake: 10m, min_requests: 1000, approve: [100]}
    metadata: {description: the new checkout, owner: web, type: release, expires: 2026-09-01, tickets: [1, 2]}
  new_cart: {active: false, guard: false}
  colour:
    active: true
    depends_on: [new_cart]
    guard: {errors: false, latency: false, traffic: false}
    variants:
      blue: {weight: 0}
      on: {weight: 100}
`

var withoutPlaces = cmp.Options{
	cmpopts.IgnoreTypes(Position{}),
	cmpopts.IgnoreFields(Flag{}, "Raw", "Source"),
	cmpopts.IgnoreFields(Segment{}, "Source"),
	cmpopts.IgnoreFields(Document{}, "Name"),
}

func pointer[T any](v T) *T { return &v }

func TestDecodeEveryField(t *testing.T) {
	doc := decodeText(t, "f.json", wholeJSON)
	day := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	colourGuard := DefaultGuard()
	colourGuard.Errors, colourGuard.Latency, colourGuard.Traffic = nil, nil, Off
	cartGuard := DefaultGuard()
	cartGuard.Enabled = false
	want := &Document{
		Segments: []*Segment{
			{Name: "eu", When: "region in ['RO', 'DE']"},
			{Name: "staff", When: "role == 'staff'", Users: []string{"ana", "7"}},
		},
		Flags: []*Flag{
			{
				Name: "checkout_v2", Active: true, Environments: &[]string{"production", "staging"},
				ActivationDate: day(2026, 1, 31, 10), DeactivationDate: day(2026, 12, 31, 0),
				DependsOn: []Dependency{{Flag: "new_cart"}, {Flag: "colour", Variant: "blue"}},
				Users:     &[]string{"7", "ana", "true", "1.5"}, Regions: &[]string{"RO"}, AccountTypes: &[]string{"premium"}, Devices: &[]string{"mobile"}, BetaProgram: true,
				Rules: []Rule{
					{Name: "staff", When: "segment('staff')", Serve: []Weight{{"blue", wholeShare}}},
					{Name: "2", When: "region == 'RO'", Serve: []Weight{{"blue", 1_250_000}, {"off", 8_750_000}}},
					{Name: "3", When: "true"},
				},
				Percentage: pointer(Share(1_234_500)), HashBy: "company", Salt: "pepper",
				Variants: []Variant{{"blue", 3_000_000, json.RawMessage(`{"b":[1,null,1.0]}`)}, {"red", 7_000_000, nil}},
				Client:   true, FallbackFor: "new_cart", Exclusive: "banner",
				ErrorThreshold: pointer(int64(5)), PerformanceBaseline: pointer(250 * time.Millisecond), PerformanceThreshold: pointer(int64(10)), TrafficDropThreshold: pointer(30.0),
				GuardGiven: true,
				Guard: Guard{
					Enabled: true, FalseAlarm: 0.001,
					Errors:  &ErrorGuard{1.5, 0.001, []ResponseMatch{{map[string]string{"X-Error": "*"}, []int{200}}, {nil, []int{404, 410}}}},
					Latency: &LatencyGuard{0.2, 2 * time.Minute},
					Traffic: "trip", Settle: 500 * time.Millisecond, UserEpoch: 48 * time.Hour, MinUsers: 5, CoolDown: 10 * time.Minute, Rearm: "edit",
				},
				Rollout:  &Rollout{Steps: []Share{perCent, 550_000, wholeShare}, Bake: 10 * time.Minute, MinRequests: 1000, Approve: []Share{wholeShare}},
				Metadata: Metadata{"the new checkout", "web", "release", day(2026, 9, 1, 0)},
			},
			{Name: "new_cart", Salt: "new_cart", GuardGiven: true, Guard: cartGuard},
			{
				Name: "colour", Active: true, Salt: "colour", DependsOn: []Dependency{{Flag: "new_cart"}}, GuardGiven: true, Guard: colourGuard,
				Variants: []Variant{{"blue", 0, nil}, {"on", wholeShare, nil}},
			},
		},
	}
	if diff := cmp.Diff(want, doc, withoutPlaces); diff != "" {
		t.Errorf("JSON (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, decodeText(t, "f.yaml", wholeYAML), withoutPlaces); diff != "" {
		t.Errorf("YAML (-want +got)\n%s", diff)
	}
	if _, err := Compile(doc); err != nil {
		t.Error(err)
	}
	if got := doc.Flags[1]; got.Source != "f.json" || got.Pos != (Position{34, 3}) || string(got.Raw) != `{"active":false,"guard":false}` {
		t.Errorf("%s %v %s", got.Source, got.Pos, got.Raw)
	}
}

// TestFlatAndWrapped: the two forms, and flags that have the names of sections.
func TestFlatAndWrapped(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		var got []string
		for _, fl := range decodeText(t, "f", text).Flags {
			got = append(got, fl.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
	f(`{}`)
	f(`{"version": 1}`)
	f(`{"flags": {}}`)
	f(`{"a": {"active": true}}`, "a")
	f(`{"$schema": "x", "a": {"active": true}}`, "a")
	f(`{"flags": {"a": {"active": true}}}`, "a")
	f(`{"flags": {"$schema": "x", "a": {"active": true}}}`, "a")
	f(`{"version": 1, "flags": {"active": {"active": true}}}`, "active")
	f(`{"flags": {"active": true}}`, "flags")
	f(`{"version": {"active": true}, "segments": {"active": true}}`, "version", "segments")
	f(`{"segments": {}}`)
	f("\xef\xbb\xbf{\"a\": {\"active\": true}}", "a")
	f("\n\t {\"a\":\r\n{\"active\":\ttrue}\r}\n\n", "a")
	f("# a comment\na: {active: true} # another\n", "a")
	f("---\na: {active: true}\n...\n", "a")
	f("\"on\": {active: true}\noff: {active: false}\n1: {active: true}\ntrue: {active: true}\n", "on", "off", "1", "true")
	f(`{"a": {"active": true, "metadata": {"description": "\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t"}}}`, "a")
}

func TestDecodeValues(t *testing.T) {
	f := func(field, want string) {
		t.Helper()
		for _, text := range []string{`{"f": {"active": true, ` + field + `}}`, "f:\n  active: true\n  " + strings.Replace(field, `"`, "", 2) + "\n"} {
			doc, err := Decode("f", []byte(text))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasSuffix(got, want) || want == "" && got != "" {
				t.Errorf("%s: got %q, want %q", text, got, want)
			}
			if doc == nil {
				t.Error("no document")
			}
		}
	}
	f(`"percentage_rollout": 1e2`, "")
	f(`"percentage_rollout": 1E-3`, "")
	f(`"percentage_rollout": 12.3450`, "")
	f(`"percentage_rollout": 0.0001`, "want at most three decimals, got 0.0001")
	f(`"percentage_rollout": 100.0`, "")
	f(`"percentage_rollout": -0`, "")
	if _, err := Decode("f", []byte(`{"f": {"active": true, "percentage_rollout": 1e999}}`)); err == nil || !strings.HasSuffix(err.Error(), "want a number from 0 to 100, got 1e999") {
		t.Errorf("1e999: %v", err) // YAML reads it as a text
	}
	f(`"error_threshold": 0`, "")
	f(`"error_threshold": 1e3`, "")
	f(`"error_threshold": 9007199254740993`, "want a whole number, 0 or more, got 9007199254740993")
	f(`"guard": {"cool_down": "1.5d"}`, "")
	f(`"guard": {"cool_down": "1h30m"}`, "")
	f(`"guard": {"user_epoch": "1e9d"}`, `got "1e9d"`)
	f(`"guard": {"user_epoch": "d"}`, `got "d"`)
	f(`"guard": {"errors": {"tolerate": 0.01}}`, "")
	f(`"guard": {"errors": {"tolerate": "NaN%"}}`, `got "NaN%"`)
	f(`"guard": {"errors": {"tolerate": "-1%"}}`, `got "-1%"`)
	f(`"guard": {"traffic": true}`, "")
	f(`"guard": {"errors": true, "latency": true}`, "")
	f(`"rollout": {"over": "24h"}`, "")
	f(`"rollout": {"steps": [100, 50, 0]}`, "")
	f(`"variants": {"on": {"value": 1}, "off": {"value": 0}}`, "")
	f(`"variants": {"on": {"weight": 33.333}, "a": {"weight": 33.333}, "b": {"weight": 33.334}}`, "")
	f(`"salt": ""`, "")
}

// TestRawDecodesAgain: a definition as written comes back as itself.
func TestRawDecodesAgain(t *testing.T) {
	for name, text := range map[string]string{"f.json": wholeJSON, "f.yaml": wholeYAML} {
		checkRaw(t, decodeText(t, name, text))
	}
}

func checkRaw(tb testing.TB, doc *Document) {
	tb.Helper()
	for _, f := range doc.Flags {
		name, _ := json.Marshal(f.Name)
		again, err := Decode("raw", []byte(`{"version": 1, "flags": {`+string(name)+`: `+string(f.Raw)+`}}`))
		if err != nil {
			tb.Fatalf("%s: %v", f.Raw, err)
		}
		if diff := cmp.Diff(f, again.Flags[0], withoutPlaces); diff != "" {
			tb.Fatalf("%s\n%s", f.Raw, diff)
		}
		if string(again.Flags[0].Raw) != string(f.Raw) {
			tb.Fatalf("%s became %s", f.Raw, again.Flags[0].Raw)
		}
	}
}

func TestErrors(t *testing.T) {
	f := func(e *Error, want string) {
		t.Helper()
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(&Error{Source: "f.json", Pos: Position{14, 9}, Flag: "new_ui", Message: "is odd"}, `f.json:14:9: flag "new_ui": is odd`)
	f(&Error{Source: "f.json", Message: "is odd"}, `f.json: is odd`)
	f(&Error{Pos: Position{14, 9}, Message: "is odd"}, `14:9: is odd`)
	f(&Error{Message: "is odd"}, `is odd`)

	var b strings.Builder
	b.WriteString("{")
	for i := range 150 {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(`"f` + strings.Repeat("x", i%100) + string(rune('a'+i/100)) + `": {"active": 1}`)
	}
	_, err := Decode("f", []byte(b.String()+"}"))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxErrors+1 || lines[maxErrors] != "and 50 more" || len(err.(Errors).Unwrap()) != 150 {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	text, _ := json.Marshal(err.(Errors)[0])
	if want := `{"source":"f","pos":{"line":1,"column":19},"flag":"fa","message":"active: want true or false, got 1"}`; string(text) != want {
		t.Errorf("got %s", text)
	}
}

// TestAllMistakesAtOnce: those of decoding, of conditions and of the graph, of
// several documents.
func TestAllMistakesAtOnce(t *testing.T) {
	a, err := Decode("a.json", []byte(`{"f": {"active": true, "regionz": []}, "g": {"active": true, "depends_on": ["nobody"]}}`))
	if err == nil {
		t.Fatal("no mistake")
	}
	b, _ := Decode("b.yaml", []byte("h: {active: true, rules: [{when: 'region ='}]}\ni: {active: true, depends_on: [i]}"))
	c, _ := Decode("c.json", []byte(`{`))
	_, err = Compile(a, b, nil, c)
	const want = `a.json:1:24: flag "f": unknown field "regionz" (did you mean "regions"?)
a.json:1:77: flag "g": depends_on: unknown flag "nobody"
b.yaml:1:34: flag "h": rules[0].when: unexpected "="; equality is == (character 8 of the condition)
b.yaml:2:1: flag "i": depends_on: cycle i → i
c.json:1:2: not JSON: the document ends inside of an object that begins at 1:1`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestDidYouMean(t *testing.T) {
	f := func(given, want string, known ...string) {
		t.Helper()
		if want != "" {
			want = ` (did you mean "` + want + `"?)`
		}
		if got := didYouMean(given, known); got != want {
			t.Errorf("%s of %v: got %q, want %q", given, known, got, want)
		}
	}
	f("percent_rollout", "percentage_rollout", "rollout", "percentage_rollout", "active")
	f("rollout_percentage", "percentage_rollout", "rollout", "percentage_rollout")
	f("percentage", "percentage_rollout", "percentage_rollout", "active")
	f("Active", "active", "active", "beta_program")
	f("acitve", "active", "active", "devices")
	f("bleu", "blue", "red", "blue")
	f("a", "", "b", "on")
	f("nobody", "", "b", "no")
	f("xyzzy", "", "active", "users")
	f(strings.Repeat("x", 300), "", strings.Repeat("x", 300))
	f("", "", "a", "on")
}
