package evaluator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checkServing checks that weights sum to 100 and that rules serve variants
// that exist.
func (d *decoder) checkServing(fl *Flag, variants Position) {
	if len(fl.Variants) > 0 && !d.badWeights {
		var sum Share
		for _, v := range fl.Variants {
			sum += v.Share
		}
		i := slices.IndexFunc(fl.Variants, func(v Variant) bool { return v.Name == On })
		switch {
		case sum == 0 && i >= 0:
			fl.Variants[i].Share = wholeShare // only values were given
		case sum != wholeShare:
			d.errorf(variants, "variants: weights sum to %s, want 100", formatShare(sum))
		}
	}
	for i, r := range fl.Rules {
		for _, w := range r.Serve {
			if !fl.serves(w.Variant) {
				d.errorf(d.serves[i], "rules[%d].serve: unknown variant %q%s; known are %s", i, clip(w.Variant), didYouMean(w.Variant, fl.variantNames()), strings.Join(fl.variantNames(), ", "))
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

// maxVariants bounds what a flag and a rule can serve: each has a decision for
// each stage of the cascade.
const maxVariants = 1000

func (d *decoder) variants(n *node, path string) []Variant {
	if n.kind != objectNode {
		d.errorf(n.pos, "%s: want an object of variant name to {weight, value}, got %s", path, n.describe())
		return nil
	}
	if len(n.fields) == 0 {
		d.errorf(n.pos, "%s: is empty; leave it out for `on` and `off`", path)
	}
	if len(n.fields) > maxVariants {
		d.errorf(n.pos, "%s: want at most %d variants, got %d", path, maxVariants, len(n.fields))
		return nil
	}
	mistakes := len(d.errs)
	var out []Variant
	for _, f := range n.fields {
		at := join(path, label(f.name))
		if !namePattern.MatchString(f.name) {
			d.errorf(f.pos, "%s: %s", at, nameRule)
		}
		if slices.ContainsFunc(out, func(v Variant) bool { return v.Name == f.name }) {
			d.errorf(f.pos, "%s: is given twice", at)
		}
		v := Variant{Name: f.name}
		d.object(f.value, at, map[string]func(*node, string){
			"weight": func(n *node, p string) { v.Share, _ = d.share(n, p) },
			"value":  func(n *node, p string) { d.unique(n, p); v.Value = n.json(nil) },
		})
		out = append(out, v)
	}
	d.badWeights = len(d.errs) > mistakes
	return out
}

func (d *decoder) rules(n *node, path string) []Rule {
	if n.kind != listNode {
		d.errorf(n.pos, "%s: want a list of {name, when, serve}, got %s", path, n.describe())
		return nil
	}
	var out []Rule
	names := make(map[string]bool, len(n.items))
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		r := Rule{Name: strconv.Itoa(i + 1), Pos: item.pos}
		namePos, servePos := item.pos, item.pos
		seen := d.object(item, at, map[string]func(*node, string){
			"name":  func(n *node, p string) { namePos, r.Name = n.pos, d.title(n, p) },
			"when":  func(n *node, p string) { r.Pos, r.When = n.pos, d.condition(n, p) },
			"serve": func(n *node, p string) { servePos, r.Serve = n.pos, d.serve(n, p) },
		})
		d.serves = append(d.serves, servePos)
		if item.kind == objectNode && !seen["when"] {
			d.errorf(item.pos, "%s.when: is required; want a CEL condition", at)
		}
		if names[r.Name] {
			d.errorf(namePos, "%s.name: %q is the name of an earlier rule; unnamed rules are numbered from 1", at, clip(r.Name))
		}
		names[r.Name] = true
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
		if len(n.fields) > maxVariants+1 { // and off
			d.errorf(n.pos, "%s: want at most %d variants, got %d", path, maxVariants+1, len(n.fields))
			return nil
		}
		var out []Weight
		var sum Share
		mistakes := len(d.errs)
		for _, f := range n.fields {
			at := join(path, label(f.name))
			if slices.ContainsFunc(out, func(w Weight) bool { return w.Variant == f.name }) {
				d.errorf(f.pos, "%s: is given twice", at)
			}
			s, _ := d.share(f.value, at)
			sum += s
			out = append(out, Weight{f.name, s})
		}
		if sum != wholeShare && len(d.errs) == mistakes {
			d.errorf(n.pos, "%s: weights sum to %s, want 100", path, formatShare(sum))
		}
		return out
	}
	d.errorf(n.pos, "%s: want a variant or an object of variant to weight, got %s", path, n.describe())
	return nil
}

func (d *decoder) dependencies(n *node, path string) (out []Dependency) {
	listed := make(map[string]bool, len(n.items)+len(n.fields))
	add := func(dep Dependency) {
		if listed[dep.Flag] {
			d.errorf(dep.Pos, "%s: %q is listed twice", path, clip(dep.Flag))
		}
		listed[dep.Flag] = true
		out = append(out, dep)
	}
	switch n.kind {
	case listNode:
		for i, item := range n.items {
			add(Dependency{Flag: d.filled(item, fmt.Sprintf("%s[%d]", path, i)), Pos: item.pos})
		}
	case objectNode:
		for _, f := range n.fields {
			at := join(path, label(f.name))
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
