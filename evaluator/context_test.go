package evaluator

import (
	"encoding/json"
	"testing"
)

// Contexts that a condition may tell apart have different keys.
func TestAppendKey(t *testing.T) {
	attributes := []Attribute{AttributeOf(UserID), AttributeOf("plan")}
	seen := map[string]any{}
	for _, v := range []any{nil, "7", int64(7), true, "true", "7\x00", json.Number("9007199254740992"), json.Number("9007199254740992.0"), "9007199254740992"} {
		for _, name := range []string{UserID, "plan"} {
			c := NewContext("", map[string]any{name: v})
			key, ok := c.AppendKey(nil, attributes)
			if before, known := seen[string(key)]; !ok || known && v != nil {
				t.Errorf("%s %#v has the key of %#v", name, v, before)
			}
			seen[string(key)] = v
		}
	}
	if _, ok := NewContext("", map[string]any{"plan": []any{"a"}}).AppendKey(nil, attributes); ok {
		t.Error("a list has a key")
	}
}
