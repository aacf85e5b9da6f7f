package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxData is the largest evidence or progress of one record, in bytes of compact JSON.
	MaxData = 1 << 20
	// MaxDetail is the largest detail of one audit entry, in bytes of compact JSON.
	MaxDetail = 64 << 10
	// MaxText is the longest name, author or reason of one record, in bytes; longer ones are cut.
	MaxText = 4 << 10
	// MaxComment is the longest comment of a person, in bytes; longer ones are cut.
	MaxComment = 16_000
)

// cleanText makes s fit for a record: what is read back from disk then equals what memory holds.
func cleanText(s string) string { return cutText(s, MaxText) }

// cutText is cleanText with a bound of its own, in bytes.
func cutText(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// cleanData returns a compact copy of raw, or nil for none. Text that is not JSON is kept as a JSON string, and data
// larger than limit bytes is replaced by a note of its size: neither may cost the record that carries it.
func cleanData(raw json.RawMessage, limit int) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		if len(bytes.TrimSpace(raw)) == 0 {
			return nil
		}
		// Quoting makes text longer, at most six times.
		if len(raw) > limit/6 {
			return fmt.Appendf(nil, `{"omitted_bytes":%d}`, len(raw))
		}
		quoted, _ := json.Marshal(string(raw))
		return quoted
	}
	// The encoder compacts what it is given with these escaped; doing it now keeps memory and disk the same.
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, b.Bytes())
	if escaped.Len() > limit {
		return fmt.Appendf(nil, `{"omitted_bytes":%d}`, escaped.Len())
	}
	if escaped.String() == "null" {
		return nil
	}
	return escaped.Bytes()
}

// progressData returns a compact copy of data, nil for none.
func progressData(data []byte) (json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if !json.Valid(data) {
		return nil, errors.New("data: is no JSON")
	}
	if len(data) > MaxData {
		return nil, fmt.Errorf("data: is %d bytes long, want at most %d", len(data), MaxData)
	}
	// Escapes may still make it longer; a line has room for that.
	return cleanData(data, maxLine/2), nil
}

// detail makes a value of this package the detail of an audit entry.
func detail(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return raw
}

// cleanTime drops the monotonic clock and the location, as a round trip through JSON would, and keeps to the years that
// JSON can tell.
func cleanTime(t time.Time) time.Time {
	t = t.Round(0).UTC()
	switch {
	case t.Year() < 1:
		return time.Time{}
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}
