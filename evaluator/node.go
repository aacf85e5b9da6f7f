package evaluator

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
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

// parseDocument reads text as JSON when it begins as such, else as YAML.
func parseDocument(text []byte) (*node, *Error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	body := bytes.TrimSpace(text)
	if len(body) == 0 {
		return nil, emptyDocument()
	}
	if pos, ok := checkUTF8(text); !ok {
		return nil, &Error{Pos: pos, Message: "the document is not UTF-8 text"}
	}
	switch body[0] {
	case '{', '[', '/': // "/" would be a comment
		return parseJSON(text)
	}
	return parseYAML(text)
}

func emptyDocument() *Error {
	return &Error{Message: `the document is empty; want an object of flags, at least {}`}
}

// checkUTF8 finds the first byte that is no text.
func checkUTF8(text []byte) (Position, bool) {
	bad := bytes.IndexByte(text, 0)
	if bad < 0 {
		if utf8.Valid(text) {
			return Position{}, true
		}
		for bad = 0; ; {
			r, size := utf8.DecodeRune(text[bad:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			bad += size
		}
	}
	line := text[bytes.LastIndexByte(text[:bad], '\n')+1 : bad]
	return Position{bytes.Count(text[:bad], []byte{'\n'}) + 1, utf8.RuneCount(line) + 1}, false
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
