package evaluator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

func parseYAML(text []byte) (n *node, failed *Error) {
	defer func() { // the library's parser has panicked on forged input before
		if r := recover(); r != nil {
			n, failed = nil, &Error{Message: fmt.Sprintf("not YAML: %v", r)}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil, emptyDocument()
	} else if err != nil {
		return nil, explainYAML(err, text)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, &Error{Pos: Position{max(1, second.Line), 1}, Message: "a second YAML document begins here; want one"}
	case !errors.Is(err, io.EOF):
		return nil, explainYAML(err, text)
	}
	if doc.Content[0].ShortTag() == "!!null" {
		return nil, emptyDocument()
	}
	n, failed = fromYAML(doc.Content[0], 0)
	widths := lineWidths(text)
	if failed != nil {
		failed.Pos = inside(widths, failed.Pos)
	} else {
		n.keepInside(widths)
	}
	return n, failed
}

var (
	yamlPlace  = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
	// These come from the library's parser, whose lines count from 0; its
	// scanner's count from 1, and the first line is left out by both.
	yamlParser = regexp.MustCompile(`^did not find expected (node content|key|'|<)`)
)

// explainYAML gives the library's error with the line that it is about.
func explainYAML(err error, text []byte) *Error {
	message := yamlPlace.ReplaceAllString(err.Error(), "")
	line := 0
	if m := yamlPlace.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1]) // "" is the first
	}
	if yamlParser.MatchString(message) {
		line++
	}
	if m := yamlAnchor.FindStringSubmatch(message); m != nil {
		before, _, found := bytes.Cut(text, []byte("*"+m[1]))
		if found {
			line = bytes.Count(before, []byte{'\n'}) + 1
		}
		message = noAnchors
	}
	lines := bytes.Split(bytes.TrimRight(text, "\r\n"), []byte{'\n'})
	line = min(max(line, 1), len(lines))
	if indent := lines[line-1]; bytes.HasPrefix(bytes.TrimLeft(indent, " "), []byte{'\t'}) {
		message += "; YAML is indented by spaces, not by tabs"
	} else if message == "found character that cannot start any token" || message == "mapping values are not allowed in this context" {
		message += "; if it is part of a text, put the text in quotes"
	}
	return &Error{Pos: Position{line, 1}, Message: "not YAML: " + message}
}

const noAnchors = "anchors and aliases are not read here; write the value out, or use a segment"

func fromYAML(y *yaml.Node, depth int) (*node, *Error) {
	n := &node{pos: Position{y.Line, y.Column}, text: y.Value}
	fail := func(format string, args ...any) (*node, *Error) {
		return nil, &Error{Pos: n.pos, Message: fmt.Sprintf(format, args...)}
	}
	if depth > maxDepth {
		return fail("nested deeper than %d levels", maxDepth)
	}
	if y.Anchor != "" || y.Kind == yaml.AliasNode {
		return fail("not read as YAML: " + noAnchors)
	}
	tag := y.ShortTag()
	switch y.Kind {
	case yaml.SequenceNode:
		if tag != "!!seq" {
			return fail("unknown YAML tag %q", clip(tag))
		}
		n.kind = listNode
		for _, c := range y.Content {
			item, err := fromYAML(c, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.MappingNode:
		if tag != "!!map" {
			return fail("unknown YAML tag %q", clip(tag))
		}
		n.kind = objectNode
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode || key.Anchor != "" {
				n.pos = Position{key.Line, key.Column}
				return fail("a name must be a plain text")
			}
			value, err := fromYAML(y.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			n.fields = append(n.fields, field{key.Value, Position{key.Line, key.Column}, value})
		}
		return n, nil
	}
	switch tag {
	case "!!null":
		n.kind = nullNode
	case "!!bool":
		var b bool
		if y.Decode(&b) != nil {
			return fail("%q is not a boolean", clip(y.Value))
		}
		n.kind, n.text = boolNode, strconv.FormatBool(b)
	case "!!int", "!!float":
		n.kind = numberNode
		if digits := strings.TrimLeft(y.Value, "+-"); len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
			// YAML 1.1 reads 017 as 15 and 018 as a text.
			return fail("%s: a number with a leading zero is read differently by different YAML readers; put it in quotes, or leave the zero out", clip(y.Value))
		}
		if n.text = jsonNumber(y); n.text == "" {
			return fail("want a finite number, got %q", clip(y.Value))
		}
	case "!!str", "!!timestamp", "!!merge":
		n.kind = stringNode
	default:
		return fail("unknown YAML tag %q", clip(tag))
	}
	return n, nil
}

// jsonNumber gives a YAML number as JSON writes it; "" when JSON cannot.
func jsonNumber(y *yaml.Node) string {
	if json.Valid([]byte(y.Value)) { // also keeps every digit of a large one
		return y.Value
	}
	var u uint64
	var i int64
	var f float64
	text := ""
	whole := y.ShortTag() == "!!int" // the library would cut .5 down to an integer
	switch {                         // 0x10, 1_000, .5, +1
	case whole && y.Decode(&i) == nil:
		text = strconv.FormatInt(i, 10)
	case whole && y.Decode(&u) == nil:
		text = strconv.FormatUint(u, 10)
	case y.Decode(&f) == nil:
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	if !json.Valid([]byte(text)) {
		return ""
	}
	return text
}

// lineWidths gives the characters of each line.
func lineWidths(text []byte) []int {
	var widths []int
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		widths = append(widths, utf8.RuneCount(line))
	}
	return widths
}

// inside moves a place into the document: the library counts more characters
// as line breaks than editors do, and places what is missing behind the end.
func inside(widths []int, p Position) Position {
	if p.Line > len(widths) {
		p = Position{len(widths), widths[len(widths)-1] + 1}
	}
	if p.Line > 0 {
		p.Column = max(1, min(p.Column, widths[p.Line-1]+1))
	}
	return p
}

func (n *node) keepInside(widths []int) {
	n.pos = inside(widths, n.pos)
	for _, item := range n.items {
		item.keepInside(widths)
	}
	for i := range n.fields {
		n.fields[i].pos = inside(widths, n.fields[i].pos)
		n.fields[i].value.keepInside(widths)
	}
}
