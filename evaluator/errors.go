package evaluator

import (
	"fmt"
	"strings"
)

// Position is a place in a definitions document; the zero Position is none.
type Position struct {
	Line   int `json:"line,omitempty"`   // from 1
	Column int `json:"column,omitempty"` // from 1, in characters
}

// Error is one mistake in a definitions document.
type Error struct {
	Source  string `json:"source,omitempty"`
	Pos     Position
	Flag    string `json:"flag,omitempty"` // "" outside of a flag
	Message string `json:"message"`
}

// Error gives `source:line:column: flag "name": message`.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Source)
	if e.Pos.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Pos.Line, e.Pos.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Flag != "" {
		fmt.Fprintf(&b, "flag %q: ", e.Flag)
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors are all the mistakes of a document, in the order of their places.
type Errors []*Error

// maxErrors bounds what one document can make a log or a terminal print.
const maxErrors = 100

// Error gives one mistake a line.
func (es Errors) Error() string {
	var b strings.Builder
	for i, e := range es {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxErrors {
			fmt.Fprintf(&b, "and %d more", len(es)-maxErrors)
			break
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// Unwrap gives the single mistakes to errors.Is and errors.As.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// didYouMean gives ` (did you mean "x"?)` for the known name nearest to given,
// or "" when none is near.
func didYouMean(given string, known []string) string {
	best, bestDistance := "", 0
	for _, k := range known {
		d := distance(strings.ToLower(given), strings.ToLower(k))
		near := d <= max(2, len(k)/3)
		// A name that contains the other is near too: "rollout" for "percentage_rollout".
		if !near && len(given) >= 4 && (strings.Contains(k, given) || strings.Contains(given, k)) {
			near, d = true, len(k)
		}
		if near && (best == "" || d < bestDistance) {
			best, bestDistance = k, d
		}
	}
	if best == "" || len(given) > 200 {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is Levenshtein's: the fewest one-letter edits from a to b.
func distance(a, b string) int {
	if len(a) > 200 || len(b) > 200 {
		return 200
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
