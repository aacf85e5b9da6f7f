package webhook

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Types of events.
const (
	Tripped      = "feature_flags.tripped"
	Held         = "feature_flags.held"
	Reset        = "feature_flags.reset"
	Overridden   = "feature_flags.overridden"
	Advanced     = "feature_flags.advanced"
	Reloaded     = "feature_flags.reloaded"
	ReloadFailed = "feature_flags.reload_failed"
	Degraded     = "feature_flags.degraded"
	Recovered    = "feature_flags.recovered"
)

// types are all of them.
var types = []string{
	Tripped, Held, Reset, Overridden, Advanced, Reloaded, ReloadFailed, Degraded, Recovered,
}

// Types returns every type of event that there is, a copy.
func Types() []string {
	return slices.Clone(types)
}

// What the texts of an event are cut to, in bytes. With every byte escaped in JSON they still fit [MaxBody] together.
const (
	maxID       = 128
	maxType     = 128
	maxFlag     = 256
	maxBy       = 256
	maxReason   = 4096
	maxInstance = 128
)

// Event is something that happened to a feature flag, or to all of them.
type Event struct {
	// ID tells events apart for ever; receivers drop what they have seen by it, and it is part of what is signed, so it
	// should not be guessable. Empty: a random one. One that is not made of 1 to 128 letters, digits, - and _ is
	// replaced by its SHA-256 in hexadecimal digits.
	ID string
	// Type is one of [Types]. Other ones go to the targets that name no types.
	Type string
	// Flag is the flag that it happened to; empty for what concerns no single one.
	Flag string
	// By is who did it, Reason why; both may be empty. They are sent, and never appear in an error or a [Report].
	By, Reason string
	// Time is when it happened. Zero, or a year that no format can write: when it was sent.
	Time time.Time
	// Instance is the instance that it happened on; may be empty.
	Instance string
	// Data is more about it, JSON of any kind; may be empty. What is no JSON, or does not fit a body of [MaxBody]
	// bytes, is replaced by an object with a "note" that says so.
	Data json.RawMessage
}

// clean returns e with everything set and nothing in it that a body, a header or the queue could choke on. Data is a
// copy.
func (e Event) clean(now time.Time) Event {
	switch {
	case e.ID == "":
		e.ID = rand.Text()
	case !isID(e.ID):
		sum := sha256.Sum256([]byte(e.ID))
		e.ID = hex.EncodeToString(sum[:])
	}
	e.Type = cut(oneLine(e.Type), maxType)
	e.Flag = cut(oneLine(e.Flag), maxFlag)
	e.By = cut(oneLine(e.By), maxBy)
	e.Reason = cut(e.Reason, maxReason)
	e.Instance = cut(oneLine(e.Instance), maxInstance)
	if e.Time = e.Time.UTC(); e.Time.IsZero() || e.Time.Year() < 1 || e.Time.Year() > 9999 {
		e.Time = now.UTC()
	}
	if len(e.Data) > MaxBody {
		e.Data = tooLarge(len(e.Data))
	} else if len(e.Data) > 0 {
		var compact bytes.Buffer
		if err := json.Compact(&compact, e.Data); err != nil {
			e.Data = note("left out: is no JSON")
		} else {
			e.Data = bytes.ToValidUTF8(compact.Bytes(), []byte("\uFFFD"))
		}
	}
	return e
}

func tooLarge(size int) json.RawMessage {
	return note(fmt.Sprintf("left out: %d bytes, a body takes %d at most", size, MaxBody))
}

// note is what stands in the place of data.
func note(text string) json.RawMessage {
	return marshal(map[string]string{"note": text})
}

// isID tells whether an id can stand in a header and in what is signed, where a dot would move borders.
func isID(id string) bool {
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return 0 < len(id) && len(id) <= maxID
}

// cut makes text valid UTF-8 without control characters, which CloudEvents forbids and databases choke on, of at most
// limit bytes, with an ellipsis where something is missing.
func cut(text string, limit int) string {
	const ellipsis = "…"
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			return utf8.RuneError
		}
		return c
	}, text)
	if len(text) <= limit {
		return text
	}
	end := limit - len(ellipsis)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

// oneLine is for what names something.
func oneLine(text string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(text)
}
