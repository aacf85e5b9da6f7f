package evaluator

import (
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a definitions document; the zero Position is none.
type Position struct {
	Line   int `json:"line,omitempty"`   // from 1
	Column int `json:"column,omitempty"` // from 1, in characters
}

// Error is one mistake in a definitions document.
type Error struct {
	Source  string   `json:"source,omitempty"`
	Pos     Position `json:"pos,omitzero"`
	Flag    string   `json:"flag,omitempty"` // "" outside of a flag
	Message string   `json:"message"`
}

// Error gives `source:line:column: flag "name": message`.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Source)
	if e.Pos.Line > 0 {
		if b.Len() > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%d:%d", e.Pos.Line, e.Pos.Column)
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
	if len(given) > 200 {
		return ""
	}
	lower, words := strings.ToLower(given), sortedWords(given)
	best, bestDistance := "", 0
	for _, k := range known {
		d, short := 0, min(len(given), len(k))
		switch {
		case sortedWords(k) == words: // rollout_percentage for percentage_rollout
		case short >= 4 && (strings.Contains(k, given) || strings.Contains(given, k)): // rollout for percentage_rollout
			d = len(k)
		default:
			d = distance(lower, strings.ToLower(k))
			if d >= short || d > max(1, short/3) {
				continue
			}
		}
		if best == "" || d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

func sortedWords(name string) string {
	words := strings.Split(strings.ToLower(name), "_")
	slices.Sort(words)
	return strings.Join(words, "_")
}

// distance is the fewest one-letter edits and swaps of neighbours from a to b
// (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 200 || len(b) > 200 {
		return 200
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
