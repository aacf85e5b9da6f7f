package evaluator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonParser reads RFC 8259 and knows the place of everything it reads. The
// standard library's Decoder does not: between tokens, a SyntaxError's Offset
// leaves out the braces and commas passed by Token.
type jsonParser struct {
	text []byte
	i    int

	// The last place asked for: places only move on, and a document may be
	// one line of megabytes.
	offset       int
	line, column int
}

func parseJSON(text []byte) (*node, *Error) {
	p := jsonParser{text: text}
	n, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if err := p.space(); err != nil {
		return nil, err
	}
	if p.i < len(p.text) {
		return nil, p.errorf(p.i, "text after the end of the document: %s", p.found())
	}
	return n, nil
}

// place returns the position of an offset.
func (p *jsonParser) place(offset int) Position {
	if offset < p.offset {
		p.offset, p.line, p.column = 0, 0, 0
	}
	passed := p.text[p.offset:offset]
	if lines := bytes.Count(passed, []byte{'\n'}); lines > 0 {
		p.line += lines
		p.column = 0
		passed = passed[bytes.LastIndexByte(passed, '\n')+1:]
	}
	p.column += utf8.RuneCount(passed)
	p.offset = offset
	return Position{p.line + 1, p.column + 1}
}

func (p *jsonParser) errorf(offset int, format string, args ...any) *Error {
	return &Error{Pos: p.place(offset), Message: "not JSON: " + fmt.Sprintf(format, args...)}
}

// space passes over white space.
func (p *jsonParser) space() *Error {
	for p.i < len(p.text) {
		switch p.text[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		case '/', '#':
			return p.errorf(p.i, "it has no comments; remove this one, or write the document as YAML")
		default:
			return nil
		}
	}
	return nil
}

// found describes what stands at p.i, for error texts.
func (p *jsonParser) found() string {
	end := p.i
	if p.text[end] == '"' {
		if length := bytes.IndexAny(p.text[end+1:], "\"\\\n"); length >= 0 && p.text[end+1+length] == '"' {
			return strconv.Quote(clip(string(p.text[end+1 : end+1+length])))
		}
	}
	for end < len(p.text) && end-p.i < 40 && isWordByte(p.text[end]) {
		end++
	}
	if end == p.i {
		_, size := utf8.DecodeRune(p.text[p.i:])
		end += size
	}
	return strconv.Quote(string(p.text[p.i:end]))
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '+' || c == '-' || c == '.'
}

// ends is the error of a document that ends inside of n.
func (p *jsonParser) ends(n *node) *Error {
	return p.errorf(len(bytes.TrimRight(p.text, " \t\r\n")), "the document ends inside of %s that begins at %d:%d", n.kind, n.pos.Line, n.pos.Column)
}

func (p *jsonParser) value(depth int) (*node, *Error) {
	if err := p.space(); err != nil {
		return nil, err
	}
	n := &node{pos: p.place(p.i)}
	if depth > maxDepth {
		return nil, &Error{Pos: n.pos, Message: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	switch c := p.text[p.i]; c {
	case '{':
		n.kind = objectNode
		return n, p.object(n, depth)
	case '[':
		n.kind = listNode
		return n, p.list(n, depth)
	case '"':
		n.kind = stringNode
		var err *Error
		n.text, err = p.string()
		return n, err
	case '\'':
		return nil, p.errorf(p.i, "a text stands in double quotes, not in single ones")
	default:
		start := p.i
		if !isWordByte(c) {
			return nil, p.errorf(start, "want a value, got %s", p.found())
		}
		for p.i < len(p.text) && isWordByte(p.text[p.i]) {
			p.i++
		}
		word := string(p.text[start:p.i])
		switch word {
		case "true", "false":
			n.kind, n.text = boolNode, word
			return n, nil
		case "null":
			return n, nil
		}
		if c < '0' && c != '-' && c != '.' && c != '+' || c > '9' {
			return nil, p.errorf(start, "want a value, got %s%s; a text stands in double quotes", strconv.Quote(clip(word)), didYouMean(word, []string{"true", "false", "null"}))
		}
		if !json.Valid([]byte(word)) {
			return nil, p.errorf(start, "%q is not a number", clip(word))
		}
		n.kind, n.text = numberNode, word
		return n, nil
	}
}

// more passes the comma before the next member of n, or n's end. what is a
// member, for error texts.
func (p *jsonParser) more(n *node, end byte, count int, what string) (bool, *Error) {
	if err := p.space(); err != nil {
		return false, err
	}
	if p.i == len(p.text) {
		return false, p.ends(n)
	}
	comma := -1
	if count > 0 && p.text[p.i] == ',' {
		comma = p.i
		p.i++
		if err := p.space(); err != nil {
			return false, err
		}
		if p.i == len(p.text) {
			return false, p.ends(n)
		}
	}
	switch c := p.text[p.i]; {
	case c == end && comma < 0:
		p.i++
		return false, nil
	case c == end:
		return false, p.errorf(comma, "nothing follows this comma; remove it")
	case c == ',':
		return false, p.errorf(p.i, "want %s, got a comma", what)
	case count > 0 && comma < 0:
		if c == '}' || c == ']' || c == ':' {
			return false, p.errorf(p.i, "want a comma or the %q of %s that begins at %d:%d, got %q", end, n.kind, n.pos.Line, n.pos.Column, c)
		}
		return false, p.errorf(p.i, "a comma is missing before %s", p.found())
	}
	return true, nil
}

func (p *jsonParser) object(n *node, depth int) *Error {
	p.i++
	for {
		more, err := p.more(n, '}', len(n.fields), "a name in double quotes")
		if err != nil || !more {
			return err
		}
		if p.text[p.i] != '"' {
			return p.errorf(p.i, "want a name in double quotes, got %s", p.found())
		}
		f := field{pos: p.place(p.i)}
		if f.name, err = p.string(); err != nil {
			return err
		}
		if err := p.space(); err != nil {
			return err
		}
		switch {
		case p.i == len(p.text):
			return p.ends(n)
		case p.text[p.i] != ':':
			return p.errorf(p.i, "want a colon after the name %q, got %s", clip(f.name), p.found())
		}
		p.i++
		if f.value, err = p.member(n, depth); err != nil {
			return err
		}
		n.fields = append(n.fields, f)
	}
}

func (p *jsonParser) list(n *node, depth int) *Error {
	p.i++
	for {
		more, err := p.more(n, ']', len(n.items), "a value")
		if err != nil || !more {
			return err
		}
		item, err := p.member(n, depth)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
}

func (p *jsonParser) member(n *node, depth int) (*node, *Error) {
	if err := p.space(); err != nil {
		return nil, err
	}
	if p.i == len(p.text) {
		return nil, p.ends(n)
	}
	return p.value(depth + 1)
}

// string reads the string that begins at p.i.
func (p *jsonParser) string() (string, *Error) {
	start := p.i
	escaped := false
	for p.i++; p.i < len(p.text); p.i++ {
		switch c := p.text[p.i]; {
		case c == '"':
			p.i++
			if !escaped {
				return string(p.text[start+1 : p.i-1]), nil
			}
			var s string
			if err := json.Unmarshal(p.text[start:p.i], &s); err != nil {
				return "", p.errorf(start, "%s", err)
			}
			return s, nil
		case c == '\\':
			escaped = true
			p.i++
			if p.i < len(p.text) && strings.IndexByte(`"\/bfnrtu`, p.text[p.i]) < 0 {
				return "", p.errorf(p.i-1, "unknown escape %s in a string; a backslash itself is written twice", strconv.Quote(`\`+string(p.runeAt(p.i))))
			}
			if p.i < len(p.text) && p.text[p.i] == 'u' && !isHex4(p.text[p.i+1:]) {
				return "", p.errorf(p.i-1, `want four hexadecimal digits after \u`)
			}
		case c == '\n' || c == '\r':
			return "", p.errorf(start, "the string that begins here is not closed on its line")
		case c < ' ':
			return "", p.errorf(p.i, `a control character in a string; write it as \u%04x`, c)
		}
	}
	return "", p.errorf(start, "the string that begins here is not closed")
}

func (p *jsonParser) runeAt(i int) rune {
	r, _ := utf8.DecodeRune(p.text[i:])
	return r
}

func isHex4(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	_, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return err == nil
}
