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

// node is a value of a definitions document with its place: one tree for JSON
// and YAML, so that both are decoded and complained about alike.
type node struct {
	kind   nodeKind
	pos    Position
	text   string // of a scalar; a number's as written
	items  []*node
	fields []field
}

type field struct {
	name  string
	pos   Position
	value *node
}

type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	stringNode
	listNode
	objectNode
)

func (k nodeKind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

const maxDepth = 64

// parseDocument reads text as JSON when it begins with a brace, else as YAML.
func parseDocument(text []byte) (*node, *Error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	body := bytes.TrimSpace(text)
	if len(body) == 0 {
		return nil, &Error{Message: `the document is empty; want an object of flags, at least {}`}
	}
	if bytes.IndexByte(body, 0) >= 0 || !utf8.Valid(body) {
		return nil, &Error{Message: "the document is not UTF-8 text"}
	}
	if body[0] == '{' || body[0] == '[' || body[0] == '"' {
		p := jsonParser{text: text, dec: json.NewDecoder(bytes.NewReader(text)), lines: lineStarts(text)}
		p.dec.UseNumber()
		return p.parse()
	}
	return parseYAML(text)
}

func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

type jsonParser struct {
	text  []byte
	dec   *json.Decoder
	lines []int

	// The last place asked for: places mostly move on, and a document may be
	// one line of megabytes.
	line, offset, column int
}

func (p *jsonParser) parse() (*node, *Error) {
	n, err := p.value(0)
	if err != nil {
		return nil, p.explain(err)
	}
	end := p.next()
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &Error{Pos: end, Message: "text after the end of the document"}
	}
	return n, nil
}

func (p *jsonParser) explain(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(syntax.Error(), "unexpected end") {
		return &Error{Pos: p.at(max(0, int(syntax.Offset)-1)), Message: "not JSON: " + syntax.Error()}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || syntax != nil {
		return &Error{Pos: p.at(len(bytes.TrimRight(p.text, " \t\r\n"))), Message: "not JSON: the document ends in the middle"}
	}
	return &Error{Pos: p.at(int(p.dec.InputOffset())), Message: "not JSON: " + err.Error()}
}

// next returns the place of the token to come.
func (p *jsonParser) next() Position {
	i := int(p.dec.InputOffset())
	for i < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[i]) >= 0 {
		i++
	}
	return p.at(i)
}

func (p *jsonParser) at(offset int) Position {
	offset = min(offset, len(p.text))
	if offset < p.offset {
		p.line, p.offset, p.column = 0, 0, 0
	}
	for p.line+1 < len(p.lines) && p.lines[p.line+1] <= offset {
		p.line++
		p.offset, p.column = p.lines[p.line], 0
	}
	p.column += utf8.RuneCount(p.text[p.offset:offset])
	p.offset = offset
	return Position{p.line + 1, p.column + 1}
}

func (p *jsonParser) value(depth int) (*node, error) {
	n := &node{pos: p.next()}
	if depth > maxDepth {
		return nil, &Error{Pos: n.pos, Message: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	token, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case nil:
		n.kind = nullNode
	case bool:
		n.kind, n.text = boolNode, strconv.FormatBool(t)
	case json.Number:
		n.kind, n.text = numberNode, string(t)
	case string:
		n.kind, n.text = stringNode, t
	case json.Delim:
		if t == '[' {
			n.kind = listNode
			for p.dec.More() {
				item, err := p.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.items = append(n.items, item)
			}
		} else {
			n.kind = objectNode
			for p.dec.More() {
				pos := p.next()
				key, err := p.dec.Token()
				if err != nil {
					return nil, err
				}
				value, err := p.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.fields = append(n.fields, field{key.(string), pos, value})
			}
		}
		if _, err := p.dec.Token(); err != nil { // the closing one
			return nil, err
		}
	}
	return n, nil
}

var yamlPlace = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func parseYAML(text []byte) (n *node, failed *Error) {
	defer func() { // the library's parser has panicked on forged input before
		if r := recover(); r != nil {
			n, failed = nil, &Error{Message: fmt.Sprintf("not YAML: %v", r)}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Error{Message: `the document is empty; want an object of flags, at least {}`}
		}
		e := &Error{Message: "not YAML: " + yamlPlace.ReplaceAllString(err.Error(), "")}
		if m := yamlPlace.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
			e.Pos.Line, _ = strconv.Atoi(m[1])
			e.Pos.Column = 1
		}
		return nil, e
	}
	if dec.Decode(&yaml.Node{}) == nil {
		return nil, &Error{Message: "more than one YAML document; want one"}
	}
	return fromYAML(doc.Content[0], 0)
}

func fromYAML(y *yaml.Node, depth int) (*node, *Error) {
	n := &node{pos: Position{y.Line, y.Column}, text: y.Value}
	if depth > maxDepth {
		return nil, &Error{Pos: n.pos, Message: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	if y.Anchor != "" || y.Kind == yaml.AliasNode {
		return nil, &Error{Pos: n.pos, Message: "YAML anchors and aliases are not read here; write the value out, or use a segment"}
	}
	switch y.Kind {
	case yaml.SequenceNode:
		n.kind = listNode
		for _, c := range y.Content {
			item, err := fromYAML(c, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
	case yaml.MappingNode:
		n.kind = objectNode
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode {
				return nil, &Error{Pos: Position{key.Line, key.Column}, Message: "a key must be a plain text"}
			}
			value, err := fromYAML(y.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			n.fields = append(n.fields, field{key.Value, Position{key.Line, key.Column}, value})
		}
	default:
		switch y.ShortTag() {
		case "!!null":
			n.kind = nullNode
		case "!!bool":
			var b bool
			if y.Decode(&b) != nil {
				return nil, &Error{Pos: n.pos, Message: fmt.Sprintf("%q is not a boolean", y.Value)}
			}
			n.kind, n.text = boolNode, strconv.FormatBool(b)
		case "!!int", "!!float":
			n.kind, n.text = numberNode, y.Value
			if !json.Valid([]byte(y.Value)) { // 0x10, 1_000, .5: as JSON would write them
				var f float64
				if err := y.Decode(&f); err != nil {
					return nil, &Error{Pos: n.pos, Message: fmt.Sprintf("%q is not a number", y.Value)}
				}
				n.text = strconv.FormatFloat(f, 'f', -1, 64)
				if !json.Valid([]byte(n.text)) {
					return nil, &Error{Pos: n.pos, Message: fmt.Sprintf("%q is not a finite number", y.Value)}
				}
			}
		default:
			n.kind = stringNode
		}
	}
	return n, nil
}

// json writes the node as compact JSON.
func (n *node) json(b []byte) []byte {
	switch n.kind {
	case nullNode:
		return append(b, "null"...)
	case boolNode, numberNode:
		return append(b, n.text...)
	case stringNode:
		return appendQuoted(b, n.text)
	case listNode:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.json(b)
		}
		return append(b, ']')
	default:
		b = append(b, '{')
		for i, f := range n.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, f.name), ':')
			b = f.value.json(b)
		}
		return append(b, '}')
	}
}

func appendQuoted(b []byte, s string) []byte {
	q, _ := json.Marshal(s) // a string always marshals
	return append(b, q...)
}

func decodeNumbers(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return dec.Decode(v)
}
