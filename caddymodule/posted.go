package caddymodule

import (
	"encoding/json"
	"fmt"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// mostAttributes is how many values a client may tell of itself, those in lists and
// objects counted each: conditions may compare all of them with all others.
const mostAttributes = 256

// checkPosted refuses attributes of a client that are too many, or that cannot be a
// person's id.
func checkPosted(attributes map[string]any) error {
	if n := values(attributes) - 1; n > mostAttributes {
		return fmt.Errorf("context: has %d attributes and elements of lists, want at most %d", n, mostAttributes)
	}
	for _, name := range []string{evaluator.TargetingKey, evaluator.UserID} {
		switch attributes[name].(type) {
		case nil, string, json.Number:
		default:
			return fmt.Errorf("context: %s: want a string", name)
		}
	}
	return nil
}

// values counts a JSON value, and what is in it.
func values(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			n += values(x)
		}
	case []any:
		for _, x := range v {
			n += values(x)
		}
	}
	return n
}

// isBounded tells whether no text in a JSON value is longer than an attribute may be.
func isBounded(v any) bool {
	switch v := v.(type) {
	case string:
		return len(v) <= maxAttribute
	case json.Number:
		return len(v) <= maxAttribute
	case map[string]any:
		for name, x := range v {
			if len(name) > maxAttribute || !isBounded(x) {
				return false
			}
		}
	case []any:
		for _, x := range v {
			if !isBounded(x) {
				return false
			}
		}
	}
	return true
}

// fillIn gives the context what the site does not know better, of the attributes
// that are accepted; nil: all. Those with overlong texts are left out. It tells whether it has
// given any.
func fillIn(c *evaluator.Context, attributes map[string]any, accepts map[string]bool) (filled bool) {
	if own, ok := attributes[evaluator.UserID]; ok { // it counts where both are given
		if evaluator.Of(own).IsMissing() {
			delete(attributes, evaluator.UserID)
		} else {
			delete(attributes, evaluator.TargetingKey)
		}
	}
	for name, value := range attributes {
		same := name
		if same == evaluator.TargetingKey {
			same = evaluator.UserID
		}
		if accepts != nil && !accepts[same] || !c.Get(name).IsMissing() || !isBounded(value) {
			continue
		}
		if v := evaluator.Of(value); !v.IsMissing() {
			c.Set(name, v)
			filled = true
		}
	}
	return filled
}
