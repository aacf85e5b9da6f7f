package token

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	var claims map[string]any
	document := `{
		"sub": "ann", "nothing": null, "": "empty", "list": [{"x": 1}],
		"app_metadata": {"plan": "pro", "deep": {"er": true}, "a.b": "dotted", "a": {"b": "walked", "c": "c"}},
		"app_metadata.plan": "literal",
		"https://example.com/plan": "gold",
		"https://example.com/app": {"plan": "inside", "other.example/x": "y"},
		"a": {"b": {"c": 1}}, "a.b": {"d": 2}
	}`
	if err := json.Unmarshal([]byte(document), &claims); err != nil {
		t.Fatal(err)
	}
	f := func(path string, want any, wantOK bool) {
		t.Helper()
		if got, ok := Lookup(claims, path); !reflect.DeepEqual(got, want) || ok != wantOK {
			t.Errorf("Lookup(%q) = %v, %v; want %v, %v", path, got, ok, want, wantOK)
		}
	}
	f("sub", "ann", true)
	f("nothing", nil, true)
	f("missing", nil, false)
	f("sub.x", nil, false)
	f("nothing.x", nil, false)
	f("list.0.x", nil, false)
	f("", "empty", true)
	f(".", nil, false)
	f("..", nil, false)
	f("app_metadata.", nil, false)
	f(".app_metadata", nil, false)
	f("app_metadata.plan", "literal", true)
	f("app_metadata.deep.er", true, true)
	f("app_metadata.a.b", "dotted", true)
	f("app_metadata.a.c", "c", true)
	f("https://example.com/plan", "gold", true)
	f("https://example.com/app.plan", "inside", true)
	f("https://example.com/app.other.example/x", "y", true)
	f("a.b.c", 1.0, true) // "a.b" has no c, so the walk goes on with "a"
	f("a.b.d", 2.0, true)
	f(strings.Repeat("a.", 4000), nil, false)
	if got, ok := Lookup(nil, "sub"); got != nil || ok {
		t.Errorf("Lookup(nil) = %v, %v", got, ok)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	claims := map[string]any{"a": map[string]any{"b": map[string]any{"c": "x"}}}
	if got := testing.AllocsPerRun(100, func() { Lookup(claims, "a.b.c") }); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}
