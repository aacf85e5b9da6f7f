package evaluator

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// many joins members, numbered, until they have size bytes.
func many(size int, open, shut, member string) string {
	var b strings.Builder
	b.WriteString(open)
	for i := 0; b.Len() < size; i++ {
		if i > 0 && open != "" {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, member, i, max(i-1, 0))
	}
	b.WriteString(shut)
	return b.String()
}

// largeDocuments are as large as documents get, or made to take long.
func largeDocuments() []struct{ name, text string } {
	return []struct{ name, text string }{
		{"5 MB of flags", manyFlags(40_000)},
		{"5 MB of YAML", many(5<<20, "", "", "\nf%[1]d:\n  active: true\n  regions: [RO, US]\n  percentage_rollout: 10\n")},
		{"a thousand rules", many(170_000, "{", "}", `"f%d": {"active": true, "rules": [{"when": "region == 'R%[1]d' && semver(app) >= semver('2.%[1]d') && tags.exists(t, t == 'x%[1]d')"}]}`)},
		{"rules of one flag", many(1<<19, `{"f": {"active": true, "rules": [`, `]}}`, `{"when": "region == 'R%[1]d'"}`)},
		{"users", many(5<<20, `{"f": {"active": true, "users": [`, `]}}`, `"user-%[1]d"`)},
		{"a chain", strings.Replace(many(2<<20, "{", "}", `"f%d": {"active": true, "regions": ["RO"], "depends_on": ["f%d"]}`), `["f0"]`, `[]`, 1)},
		{"unknown flags", many(2<<20, "{", "}", `"f%d": {"active": true, "depends_on": ["g%[1]d"]}`)},
		{"unknown fields", many(2<<20, "{", "}", `"f%[1]d": {"activ": true}`)},
		{"dependencies of one flag", many(1<<20, `{"f": {"active": true, "depends_on": [`, `]}}`, `"f%[1]d"`)},
		{"variants", many(1<<20, `{"f": {"active": true, "variants": {`, `}}}`, `"v%[1]d": {"weight": 0}`)},
		{"lists in lists", strings.Repeat("[", 1<<20)},
		{"objects in objects", strings.Repeat(`{"a":`, 1<<20)},
		{"lists in YAML", "a: " + strings.Repeat("[", 1<<20)},
		{"dashes in YAML", strings.Repeat("- ", 1<<20)},
	}
}

// TestLargeDocuments wants each read and compiled before anybody gives up: 3 s is
// the figure for 5 MB, the rest is for busy machines and the race detector.
func TestLargeDocuments(t *testing.T) {
	for _, d := range largeDocuments() {
		t.Run(d.name, func(t *testing.T) {
			began := time.Now()
			doc, _ := Decode("f", []byte(d.text))
			program, err := Compile(doc)
			if err == nil {
				Lint(program.With(map[string]State{"f1": {Share: new(Share)}}), time.Now(), nil)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%d bytes took %s", len(d.text), took)
			} else {
				t.Logf("%d bytes, %s, compiles: %t", len(d.text), took, err == nil)
			}
		})
	}
}
