package token

import "strings"

// Lookup finds a claim by a dotted path, for instance "app_metadata.plan". A key that holds dots itself wins over the
// walk, at every level, the longest first: "https://example.com/plan" is found as that one claim, and
// "https://example.com/app.plan" also as plan inside "https://example.com/app". Arrays are not walked.
//
// It reports false when nothing is there and true with nil for a JSON null. Numbers are [encoding/json.Number], objects
// map[string]any, arrays []any. It does not allocate.
func Lookup(claims map[string]any, path string) (any, bool) {
	if value, ok := claims[path]; ok {
		return value, true
	}
	for end := strings.LastIndexByte(path, '.'); end >= 0; end = strings.LastIndexByte(path[:end], '.') {
		inner, ok := claims[path[:end]].(map[string]any)
		if !ok {
			continue
		}
		if value, ok := Lookup(inner, path[end+1:]); ok {
			return value, true
		}
	}
	return nil, false
}
