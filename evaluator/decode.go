package evaluator

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Decode reads a definitions document, JSON or YAML, flat (an object of flag
// name to flag) or wrapped ({"version": 1, "segments": {…}, "flags": {…}}).
//
// The error is an [Errors] with every mistake that can be seen in the document
// alone; what flags say of each other, and CEL, is checked by [Compile]. The
// document is nil only when nothing of it could be read.
func Decode(name string, text []byte) (*Document, error) {
	root, failed := parseDocument(text)
	d := &decoder{source: name}
	if failed != nil {
		failed.Source = name
		return nil, Errors{failed}
	}
	doc := d.document(root)
	if len(d.errs) > 0 {
		sortErrors(d.errs)
		return doc, d.errs
	}
	return doc, nil
}

func sortErrors(errs Errors) {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		if c := strings.Compare(a.Source, b.Source); c != 0 {
			return c
		}
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Column - b.Pos.Column
	})
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// decoder walks a document and gathers its mistakes.
type decoder struct {
	source string
	flag   string // the one being read, for error texts
	errs   Errors
}

func (d *decoder) errorf(pos Position, format string, args ...any) {
	d.errs = append(d.errs, &Error{Source: d.source, Pos: pos, Flag: d.flag, Message: fmt.Sprintf(format, args...)})
}

// object hands every field of n to its reader and complains of those without.
// path is the field n belongs to, "" at the top.
func (d *decoder) object(n *node, path string, readers map[string]func(*node, string)) (seen map[string]bool) {
	seen = make(map[string]bool, len(n.fields))
	if n.kind != objectNode {
		d.errorf(n.pos, "%swant an object, got %s", prefix(path), n.describe())
		return seen
	}
	for _, f := range n.fields {
		read, known := readers[f.name]
		switch {
		case !known:
			d.errorf(f.pos, "%sunknown field %q%s", prefix(path), clip(f.name), didYouMean(f.name, slices.Sorted(maps.Keys(readers))))
		case seen[f.name]:
			d.errorf(f.pos, "%sfield %q is given twice", prefix(path), f.name)
		default:
			seen[f.name] = true
			read(f.value, join(path, f.name))
		}
	}
	return seen
}

func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// clip keeps a forged megabyte of a name out of logs.
func clip(s string) string {
	if len(s) > 140 {
		return s[:140] + "…"
	}
	return s
}

func (n *node) describe() string {
	switch n.kind {
	case boolNode, numberNode:
		return n.text
	case stringNode:
		return strconv.Quote(clip(n.text))
	default:
		return n.kind.String()
	}
}

func (d *decoder) document(root *node) *Document {
	doc := &Document{Name: d.source}
	if root.kind != objectNode {
		d.errorf(root.pos, "want an object of flags, got %s", root.describe())
		return doc
	}
	if !isWrapped(root) {
		d.flags(root, doc)
		return doc
	}
	d.object(root, "", map[string]func(*node, string){
		"$schema": func(*node, string) {},
		"version": func(n *node, path string) {
			if n.kind != numberNode || n.text != "1" {
				d.errorf(n.pos, "%s: want 1, got %s", path, n.describe())
			}
		},
		"segments": func(n *node, path string) { d.segments(n, path, doc) },
		"flags":    func(n *node, _ string) { d.flags(n, doc) },
	})
	return doc
}

// isWrapped tells the wrapped form from the flat one, in which `flags` or
// `version` could be the name of a flag: a flag is an object with `active`.
func isWrapped(root *node) bool {
	for _, f := range root.fields {
		switch f.name {
		case "version":
			if f.value.kind != objectNode {
				return true
			}
		case "flags", "segments":
			if f.value.kind != objectNode || !slices.ContainsFunc(f.value.fields, func(g field) bool { return g.name == "active" && g.value.kind == boolNode }) {
				return true
			}
		}
	}
	return false
}

func (d *decoder) segments(n *node, path string, doc *Document) {
	if n.kind != objectNode {
		d.errorf(n.pos, "%s: want an object of segment name to condition, got %s", path, n.describe())
		return
	}
	seen := map[string]bool{}
	for _, f := range n.fields {
		at := join(path, clip(f.name))
		if !namePattern.MatchString(f.name) {
			d.errorf(f.pos, "%s: a name is 1 to 128 letters, digits, '_', '.', '-' and begins with a letter or digit", at)
		}
		if seen[f.name] {
			d.errorf(f.pos, "%s: is given twice", at)
		}
		seen[f.name] = true
		s := &Segment{Name: f.name, Source: d.source, Pos: f.pos}
		if f.value.kind == stringNode {
			s.When, s.Pos = f.value.text, f.value.pos
		} else {
			d.object(f.value, at, map[string]func(*node, string){
				"when": func(n *node, p string) { s.When, s.Pos = d.text(n, p), n.pos },
				"users": func(n *node, p string) {
					if users := d.texts(n, p); users != nil {
						s.Users = *users
					}
				},
				"description": func(n *node, p string) { d.text(n, p) },
			})
		}
		if s.When == "" && s.Users == nil {
			d.errorf(f.pos, "%s: want a CEL condition, or an object with `when` or `users`", at)
		}
		doc.Segments = append(doc.Segments, s)
	}
}

func (d *decoder) flags(n *node, doc *Document) {
	if n.kind != objectNode {
		d.errorf(n.pos, "flags: want an object of flag name to flag, got %s", n.describe())
		return
	}
	seen := make(map[string]bool, len(n.fields))
	for _, f := range n.fields {
		if f.name == "$schema" && f.value.kind == stringNode {
			continue
		}
		d.flag = clip(f.name)
		switch {
		case !namePattern.MatchString(f.name):
			d.errorf(f.pos, "a name is 1 to 128 letters, digits, '_', '.', '-' and begins with a letter or digit")
		case seen[f.name]:
			d.errorf(f.pos, "is defined twice")
		}
		seen[f.name] = true
		doc.Flags = append(doc.Flags, d.definition(f))
		d.flag = ""
	}
}

func (d *decoder) definition(f field) *Flag {
	fl := &Flag{Name: f.name, Salt: f.name, Source: d.source, Pos: f.pos, Guard: DefaultGuard()}
	var variantsPos Position
	seen := d.object(f.value, "", map[string]func(*node, string){
		"active":            func(n *node, p string) { fl.Active = d.boolean(n, p) },
		"environments":      func(n *node, p string) { fl.Environments = d.texts(n, p) },
		"activation_date":   func(n *node, p string) { fl.ActivationDate = d.date(n, p) },
		"deactivation_date": func(n *node, p string) { fl.DeactivationDate = d.date(n, p) },
		"depends_on":        func(n *node, p string) { fl.DependsOn = d.dependencies(n, p) },
		"users":             func(n *node, p string) { fl.Users = d.texts(n, p) },
		"regions":           func(n *node, p string) { fl.Regions = d.texts(n, p) },
		"account_types":     func(n *node, p string) { fl.AccountTypes = d.texts(n, p) },
		"devices":           func(n *node, p string) { fl.Devices = d.texts(n, p) },
		"beta_program":      func(n *node, p string) { fl.BetaProgram = d.boolean(n, p) },
		"rules":             func(n *node, p string) { fl.Rules = d.rules(n, p) },
		"percentage_rollout": func(n *node, p string) {
			if s, ok := d.share(n, p); ok {
				fl.Percentage = &s
			}
		},
		"hash_by":                func(n *node, p string) { fl.HashBy = d.filled(n, p) },
		"salt":                   func(n *node, p string) { fl.Salt = d.text(n, p) },
		"variants":               func(n *node, p string) { variantsPos = n.pos; fl.Variants = d.variants(n, p) },
		"client":                 func(n *node, p string) { fl.Client = d.boolean(n, p) },
		"fallback_for":           func(n *node, p string) { fl.FallbackFor = d.filled(n, p) },
		"exclusive":              func(n *node, p string) { fl.Exclusive = d.filled(n, p) },
		"error_threshold":        func(n *node, p string) { fl.ErrorThreshold = d.count(n, p) },
		"performance_baseline":   func(n *node, p string) { fl.PerformanceBaseline = d.seconds(n, p) },
		"performance_threshold":  func(n *node, p string) { fl.PerformanceThreshold = d.count(n, p) },
		"traffic_drop_threshold": func(n *node, p string) { fl.TrafficDropThreshold = d.percent(n, p) },
		"guard":                  func(n *node, p string) { fl.Guard = d.guard(n, p) },
		"rollout":                func(n *node, p string) { fl.Rollout = d.rollout(n, p) },
		"metadata":               func(n *node, p string) { fl.Metadata = d.metadata(n, p) },
	})
	if f.value.kind != objectNode {
		return fl
	}
	if !seen["active"] {
		d.errorf(f.pos, "active: is required; want true or false")
	}
	if !fl.ActivationDate.IsZero() && !fl.DeactivationDate.IsZero() && !fl.ActivationDate.Before(fl.DeactivationDate) {
		d.errorf(f.pos, "deactivation_date: %s is not after activation_date %s", fl.DeactivationDate.Format(time.RFC3339), fl.ActivationDate.Format(time.RFC3339))
	}
	if seen["performance_threshold"] != seen["performance_baseline"] {
		d.errorf(f.pos, "performance_baseline and performance_threshold: want both, or neither")
	}
	d.checkServing(fl, variantsPos)
	fl.Raw = json.RawMessage(f.value.json(nil))
	return fl
}

// checkServing checks that weights sum to 100 and that rules serve variants
// that exist.
func (d *decoder) checkServing(fl *Flag, pos Position) {
	if len(fl.Variants) > 0 {
		var sum Share
		for _, v := range fl.Variants {
			sum += v.Share
		}
		i := slices.IndexFunc(fl.Variants, func(v Variant) bool { return v.Name == On })
		switch {
		case sum == 0 && i >= 0:
			fl.Variants[i].Share = wholeShare // only values were given
		case sum != wholeShare:
			d.errorf(pos, "variants: weights sum to %s, want 100", formatShare(sum))
		}
	}
	for i := range fl.Rules {
		r := &fl.Rules[i]
		for _, w := range r.Serve {
			if !fl.serves(w.Variant) {
				d.errorf(r.Pos, "rules[%d].serve: unknown variant %q%s; known are %s", i, clip(w.Variant), didYouMean(w.Variant, fl.variantNames()), strings.Join(fl.variantNames(), ", "))
			}
		}
	}
}

func (fl *Flag) serves(variant string) bool {
	return variant == Off || slices.Contains(fl.variantNames(), variant)
}

func (fl *Flag) variantNames() []string {
	if len(fl.Variants) == 0 {
		return []string{On, Off}
	}
	names := make([]string, len(fl.Variants))
	for i, v := range fl.Variants {
		names[i] = v.Name
	}
	return names
}

func (d *decoder) variants(n *node, path string) []Variant {
	if n.kind != objectNode {
		d.errorf(n.pos, "%s: want an object of variant name to {weight, value}, got %s", path, n.describe())
		return nil
	}
	if len(n.fields) == 0 {
		d.errorf(n.pos, "%s: is empty; leave it out for `on` and `off`", path)
	}
	var out []Variant
	for _, f := range n.fields {
		at := join(path, clip(f.name))
		if !namePattern.MatchString(f.name) {
			d.errorf(f.pos, "%s: a name is 1 to 128 letters, digits, '_', '.', '-' and begins with a letter or digit", at)
		}
		if slices.ContainsFunc(out, func(v Variant) bool { return v.Name == f.name }) {
			d.errorf(f.pos, "%s: is given twice", at)
		}
		v := Variant{Name: f.name}
		d.object(f.value, at, map[string]func(*node, string){
			"weight": func(n *node, p string) { v.Share, _ = d.share(n, p) },
			"value":  func(n *node, _ string) { v.Value = n.json(nil) },
		})
		out = append(out, v)
	}
	return out
}

func (d *decoder) rules(n *node, path string) []Rule {
	if n.kind != listNode {
		d.errorf(n.pos, "%s: want a list of {name, when, serve}, got %s", path, n.describe())
		return nil
	}
	var out []Rule
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		r := Rule{Name: strconv.Itoa(i + 1), Pos: item.pos}
		seen := d.object(item, at, map[string]func(*node, string){
			"name": func(n *node, p string) { r.Name = d.filled(n, p) },
			"when": func(n *node, p string) {
				r.Pos = n.pos
				if n.kind == boolNode { // `when: true` in YAML
					r.When = n.text
				} else {
					r.When = d.filled(n, p)
				}
			},
			"serve": func(n *node, p string) { r.Serve = d.serve(n, p) },
		})
		if item.kind == objectNode && !seen["when"] {
			d.errorf(item.pos, "%s.when: is required; want a CEL condition", at)
		}
		for _, other := range out {
			if other.Name == r.Name {
				d.errorf(r.Pos, "%s.name: %q is the name of an earlier rule", at, clip(r.Name))
			}
		}
		out = append(out, r)
	}
	return out
}

// serve reads a variant's name or weights that sum to 100.
func (d *decoder) serve(n *node, path string) []Weight {
	switch n.kind {
	case stringNode:
		return []Weight{{n.text, wholeShare}}
	case boolNode: // unquoted on and off are booleans to some YAML writers
		if n.text == "true" {
			return []Weight{{On, wholeShare}}
		}
		return []Weight{{Off, wholeShare}}
	case objectNode:
		var out []Weight
		var sum Share
		for _, f := range n.fields {
			s, _ := d.share(f.value, join(path, clip(f.name)))
			sum += s
			out = append(out, Weight{f.name, s})
		}
		if sum != wholeShare {
			d.errorf(n.pos, "%s: weights sum to %s, want 100", path, formatShare(sum))
		}
		return out
	}
	d.errorf(n.pos, "%s: want a variant or an object of variant to weight, got %s", path, n.describe())
	return nil
}

func (d *decoder) dependencies(n *node, path string) (out []Dependency) {
	add := func(dep Dependency) {
		if slices.ContainsFunc(out, func(o Dependency) bool { return o.Flag == dep.Flag }) {
			d.errorf(dep.Pos, "%s: %q is listed twice", path, clip(dep.Flag))
		}
		out = append(out, dep)
	}
	switch n.kind {
	case listNode:
		for i, item := range n.items {
			add(Dependency{Flag: d.filled(item, fmt.Sprintf("%s[%d]", path, i)), Pos: item.pos})
		}
	case objectNode:
		for _, f := range n.fields {
			at := join(path, clip(f.name))
			dep := Dependency{Flag: f.name, Pos: f.pos}
			if f.value.kind != boolNode || f.value.text != "true" {
				if dep.Variant = d.filled(f.value, at); dep.Variant == Off {
					d.errorf(f.value.pos, "%s: a dependency must be on; %q cannot be asked for", at, Off)
				}
			}
			add(dep)
		}
	default:
		d.errorf(n.pos, "%s: want a list of flags or an object of flag to variant, got %s", path, n.describe())
	}
	return out
}

func (d *decoder) metadata(n *node, path string) (m Metadata) {
	if n.kind != objectNode {
		d.errorf(n.pos, "%s: want an object, got %s", path, n.describe())
		return m
	}
	for _, f := range n.fields {
		at := join(path, clip(f.name))
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
			out = append(out, number(item.text).text)
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
				hint = "; without quotes or %"
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
	f, ok := d.number(n, path, "0 to 100", func(f float64) bool { return f >= 0 && f <= 100 })
	if !ok {
		return 0, false
	}
	thousandths := math.Round(f * 1000)
	if math.Abs(f*1000-thousandths) > 1e-6 {
		d.errorf(n.pos, "%s: want at most three decimals, got %s", path, n.text)
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

var dateLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02"}

// date reads RFC 3339; without an offset it is UTC, without a time midnight.
func (d *decoder) date(n *node, path string) time.Time {
	if n.kind == stringNode || n.kind == numberNode {
		for _, layout := range dateLayouts {
			if t, err := time.Parse(layout, n.text); err == nil {
				return t.UTC()
			}
		}
	}
	d.errorf(n.pos, `%s: want a date as "2026-01-31T12:00:00Z", got %s`, path, n.describe())
	return time.Time{}
}
