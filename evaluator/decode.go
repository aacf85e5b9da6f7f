package evaluator

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Decode reads a definitions document, JSON or YAML, flat (an object of flag
// name to flag) or wrapped ({"version": 1, "segments": {…}, "flags": {…}}).
//
// The error is an [Errors] with every mistake that can be seen in the document
// alone; what flags say of each other, and CEL, is checked by [Compile]. The
// document is never nil and keeps its mistakes: Compile refuses it, with these
// and its own, so that a person sees all of them at once.
func Decode(name string, text []byte) (*Document, error) {
	root, failed := parseDocument(text)
	if failed != nil {
		failed.Source = name
		return &Document{Name: name, Errors: Errors{failed}}, Errors{failed}
	}
	d := &decoder{source: name}
	doc := d.document(root)
	if len(d.errs) > 0 {
		sortErrors(d.errs)
		doc.Errors = d.errs
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

const nameRule = "a name is 1 to 128 letters, digits, '_', '.' and '-', and begins with a letter or a digit"

// decoder walks a document and gathers its mistakes.
type decoder struct {
	source string
	flag   string // the one being read, for error texts
	errs   Errors

	// Of the flag being read.
	serves     []Position // of its rules
	badWeights bool       // its variants have mistakes: do not add them up
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
			hint := ""
			if len(d.errs) < maxErrors { // nobody sees the others
				hint = didYouMean(f.name, slices.Sorted(maps.Keys(readers)))
			}
			d.errorf(f.pos, "%sunknown field %q%s", prefix(path), clip(f.name), hint)
		case seen[f.name]:
			d.errorf(f.pos, "%sfield %q is given twice", prefix(path), clip(f.name))
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
	const most = 140
	if len(s) <= most {
		return s
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// label gives a name that a person chose for the path in an error text: as it
// is, or quoted, so that no name breaks a line of a log.
func label(name string) string {
	if namePattern.MatchString(name) {
		return name
	}
	return strconv.Quote(clip(name))
}

func (n *node) describe() string {
	switch n.kind {
	case boolNode, numberNode:
		return clip(n.text)
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
		at := join(path, label(f.name))
		if !namePattern.MatchString(f.name) {
			d.errorf(f.pos, "%s: %s", at, nameRule)
		}
		if seen[f.name] {
			d.errorf(f.pos, "%s: is given twice", at)
		}
		seen[f.name] = true
		s := &Segment{Name: f.name, Source: d.source, Pos: f.pos}
		switch f.value.kind {
		case stringNode, boolNode:
			s.When, s.Pos = d.condition(f.value, at), f.value.pos
		case objectNode:
			given := d.object(f.value, at, map[string]func(*node, string){
				"when":        func(n *node, p string) { s.When, s.Pos = d.condition(n, p), n.pos },
				"users":       func(n *node, p string) { s.Users = *d.texts(n, p) },
				"description": func(n *node, p string) { d.text(n, p) },
			})
			if !given["when"] && !given["users"] {
				d.errorf(f.pos, "%s: want `when`, `users` or both", at)
			}
		default:
			d.errorf(f.value.pos, "%s: want a CEL condition, or an object with `when` or `users`, got %s", at, f.value.describe())
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
			d.errorf(f.pos, "%s", nameRule)
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
	var variantsPos, untilPos Position
	d.serves, d.badWeights = nil, false
	seen := d.object(f.value, "", map[string]func(*node, string){
		"active":            func(n *node, p string) { fl.Active = d.boolean(n, p) },
		"environments":      func(n *node, p string) { fl.Environments = d.texts(n, p) },
		"activation_date":   func(n *node, p string) { fl.ActivationDate = d.date(n, p) },
		"deactivation_date": func(n *node, p string) { untilPos, fl.DeactivationDate = n.pos, d.date(n, p) },
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
		"guard":                  func(n *node, p string) { fl.GuardGiven, fl.Guard = true, d.guard(n, p) },
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
		d.errorf(untilPos, "deactivation_date: %s is not after activation_date %s", fl.DeactivationDate.Format(time.RFC3339), fl.ActivationDate.Format(time.RFC3339))
	}
	if seen["performance_threshold"] != seen["performance_baseline"] {
		d.errorf(f.pos, "performance_baseline and performance_threshold: want both, or neither")
	}
	d.checkServing(fl, variantsPos)
	fl.Raw = json.RawMessage(f.value.json(nil))
	return fl
}
