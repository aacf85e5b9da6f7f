package sources

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A copy is a line, the head, and behind it the body as it is:
//
//	feature-flags-kept 1 SHA-256-OF-THE-REST {"name":…,"revision":…,"read_at":…}
const (
	keptMark = "feature-flags-kept 1 "
	// maxKeptHead is the largest size of the head in bytes.
	maxKeptHead = 64 << 10
)

// keptHead is what belongs to a body.
type keptHead struct {
	Name     string    `json:"name"`
	Revision string    `json:"revision"`
	ReadAt   time.Time `json:"read_at"`
}

// encodeKeptHead returns the head of a copy, with the end of its line.
func encodeKeptHead(doc Document) ([]byte, error) {
	text, err := json.Marshal(keptHead{Name: doc.Name, Revision: doc.Revision, ReadAt: doc.ReadAt.Round(0)})
	if err != nil {
		return nil, fmt.Errorf("encoding what belongs to the document: %w", err) // A year that JSON cannot tell.
	}
	head := fmt.Appendf(nil, "%s%x %s\n", keptMark, sha256.Sum256(text), text)
	if len(head) > maxKeptHead {
		return nil, fmt.Errorf("the document's name makes a head of %d bytes, want at most %d", len(head), maxKeptHead)
	}
	return head, nil
}

// decodeKept returns the document of a copy, whose body is a part of text. The error says in which way it is not one.
func decodeKept(text []byte) (Document, error) {
	if len(text) == 0 {
		return Document{}, errors.New("it is empty")
	}
	line, body, ended := bytes.Cut(text, []byte("\n"))
	rest, marked := bytes.CutPrefix(line, []byte(keptMark))
	sum, about, split := bytes.Cut(rest, []byte(" "))
	if !ended || !marked || !split || len(line) >= maxKeptHead {
		return Document{}, errors.New("it does not begin as a copy does")
	}
	if want := sha256.Sum256(about); hex.EncodeToString(want[:]) != string(sum) {
		return Document{}, errors.New("its first line is not as it was written")
	}
	var head keptHead
	if err := json.Unmarshal(about, &head); err != nil {
		return Document{}, errors.New("its first line holds no JSON")
	}
	doc := newDocument(head.Name, body, head.ReadAt)
	if doc.Revision != head.Revision {
		return Document{}, errors.New("its body is not that of its revision")
	}
	return doc, nil
}
