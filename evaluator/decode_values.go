package evaluator

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// title reads a rule's name, which shows up in reasons, logs and consoles.
func (d *decoder) title(n *node, path string) string {
	s := d.filled(n, path)
	if utf8.RuneCountInString(s) > 128 || strings.ContainsFunc(s, unicode.IsControl) {
		d.errorf(n.pos, "%s: want at most 128 characters and no control characters, got %q", path, clip(s))
	}
	return s
}

// condition reads a CEL expression; `when: true` needs no quotes.
func (d *decoder) condition(n *node, path string) string {
	if n.kind == boolNode {
		return n.text
	}
	if n.kind != stringNode {
		d.errorf(n.pos, "%s: want a CEL condition in a string, got %s", path, n.describe())
		return ""
	}
	return d.filled(n, path)
}

func (d *decoder) metadata(n *node, path string) (m Metadata) {
	if n.kind != objectNode {
		d.errorf(n.pos, "%s: want an object, got %s", path, n.describe())
		return m
	}
	d.unique(n, path)
	for _, f := range n.fields {
		at := join(path, label(f.name))
		switch f.name {
		case "description":
			m.Description = d.text(f.value, at)
		case "owner":
			m.Owner = d.text(f.value, at)
		case "type":
			m.Type = d.oneOf(f.value, at, "release", "experiment", "operational", "permission")
		case "expires":
			m.Expires = d.date(f.value, at)
		}
	}
	return m
}

// unique complains of fields that are given twice anywhere in n, of which
// JSON readers keep now the first and now the last.
func (d *decoder) unique(n *node, path string) {
	for i, item := range n.items {
		d.unique(item, fmt.Sprintf("%s[%d]", path, i))
	}
	seen := make(map[string]bool, len(n.fields))
	for _, f := range n.fields {
		if seen[f.name] {
			d.errorf(f.pos, "%s: field %q is given twice", path, clip(f.name))
		}
		seen[f.name] = true
		d.unique(f.value, join(path, label(f.name)))
	}
}

func (d *decoder) boolean(n *node, path string) bool {
	if n.kind != boolNode {
		d.errorf(n.pos, "%s: want true or false, got %s", path, n.describe())
	}
	return n.text == "true"
}

func (d *decoder) text(n *node, path string) string {
	if n.kind != stringNode {
		d.errorf(n.pos, "%s: want a string, got %s", path, n.describe())
		return ""
	}
	return n.text
}

func (d *decoder) filled(n *node, path string) string {
	s := d.text(n, path)
	if s == "" && n.kind == stringNode {
		d.errorf(n.pos, "%s: is empty", path)
	}
	return s
}

func (d *decoder) oneOf(n *node, path string, allowed ...string) string {
	s := d.text(n, path)
	if n.kind == stringNode && !slices.Contains(allowed, s) {
		d.errorf(n.pos, "%s: want one of %s, got %q%s", path, strings.Join(allowed, ", "), clip(s), didYouMean(s, allowed))
	}
	return s
}

// texts reads a list of strings, numbers and booleans as texts.
func (d *decoder) texts(n *node, path string) *[]string {
	out := []string{}
	if n.kind != listNode {
		d.errorf(n.pos, "%s: want a list, got %s", path, n.describe())
		return &out
	}
	for i, item := range n.items {
		switch item.kind {
		case stringNode, boolNode:
			out = append(out, item.text)
		case numberNode:
			text := number(item.text).text
			if text == "" {
				d.errorf(item.pos, "%s[%d]: %s is too large a number; put it in quotes", path, i, clip(item.text))
			}
			out = append(out, text)
		default:
			d.errorf(item.pos, "%s[%d]: want a string or a number, got %s", path, i, item.describe())
		}
	}
	return &out
}

func (d *decoder) number(n *node, path, want string, ok func(float64) bool) (float64, bool) {
	if n.kind != numberNode {
		hint := ""
		if n.kind == stringNode {
			if _, err := strconv.ParseFloat(strings.TrimSuffix(n.text, "%"), 64); err == nil {
				hint = "; write it without quotes and without %"
			}
		}
		d.errorf(n.pos, "%s: want %s, got %s%s", path, want, n.describe(), hint)
		return 0, false
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil || !ok(f) {
		d.errorf(n.pos, "%s: want %s, got %s", path, want, clip(n.text))
		return 0, false
	}
	return f, true
}

// share reads a percentage of 0 to 100 with up to three decimals.
func (d *decoder) share(n *node, path string) (Share, bool) {
	f, ok := d.number(n, path, "a number from 0 to 100", func(f float64) bool { return f >= 0 && f <= 100 })
	if !ok {
		return 0, false
	}
	thousandths := math.Round(f * 1000)
	if math.Abs(f*1000-thousandths) > 1e-6 {
		d.errorf(n.pos, "%s: want at most three decimals, got %s", path, clip(n.text))
		return 0, false
	}
	return Share(thousandths) * (perCent / 1000), true
}

func formatShare(s Share) string {
	return strconv.FormatFloat(s.Percent(), 'f', -1, 64)
}

func (d *decoder) count(n *node, path string) *int64 {
	f, ok := d.number(n, path, "a whole number, 0 or more", func(f float64) bool { return f >= 0 && f == math.Trunc(f) && f < 1<<53 })
	if !ok {
		return nil
	}
	i := int64(f)
	return &i
}

func (d *decoder) seconds(n *node, path string) *time.Duration {
	f, ok := d.number(n, path, "seconds, more than 0 and at most 86400", func(f float64) bool { return f > 0 && f <= 86400 })
	if !ok {
		return nil
	}
	s := time.Duration(f * float64(time.Second))
	return &s
}

func (d *decoder) percent(n *node, path string) *float64 {
	f, ok := d.number(n, path, "a percentage, more than 0 and below 100", func(f float64) bool { return f > 0 && f < 100 })
	if !ok {
		return nil
	}
	return &f
}

var dateLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02"}

// date reads RFC 3339; without an offset it is UTC, without a time midnight.
func (d *decoder) date(n *node, path string) time.Time {
	if n.kind == stringNode {
		for _, layout := range dateLayouts {
			if t, err := time.Parse(layout, n.text); err == nil {
				return t.UTC()
			}
		}
	}
	d.errorf(n.pos, `%s: want a date as "2026-01-31T12:00:00Z", got %s`, path, n.describe())
	return time.Time{}
}
