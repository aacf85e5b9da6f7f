package simulation

import (
	"bytes"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// AccessLog reads lines of Caddy's JSON access log.
type AccessLog struct {
	Flag string

	// User is the field that tells users apart, with dots: `request.client_ip`.
	// "": the log's `user_id`, where it has one.
	User string
}

// IsAccessLog tells whether a line is of an access log rather than of a trace.
func IsAccessLog(line []byte) bool {
	var l struct {
		T       json.RawMessage `json:"t"`
		Request json.RawMessage `json:"request"`
	}
	return json.Unmarshal(line, &l) == nil && l.T == nil && len(l.Request) > 0
}

// ErrOther is the error of a line that is well and of no use here: of another
// flag, or decided by another way than the split.
var ErrOther = errors.New("not of this flag's split")

// Parse reads one line.
func (a AccessLog) Parse(line []byte) (q Request, err error) {
	var l struct {
		TS       json.RawMessage `json:"ts"`
		Status   int             `json:"status"`
		Duration json.RawMessage `json:"duration"`
		UserID   string          `json:"user_id"`
		Flags    map[string]struct {
			Variant, Reason string
			Compared        *bool
			Outcome         Outcome
			FirstByte       *float64 `json:"ttfb"`
		} `json:"feature_flags"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return q, fmt.Errorf("want a JSON object: %w", err)
	}
	f, ok := l.Flags[a.Flag]
	if !ok || f.Reason != "SPLIT" || f.Compared != nil && !*f.Compared {
		return q, ErrOther
	}
	ended, err := logTime(l.TS)
	if err != nil {
		return q, fmt.Errorf("ts: %w", err)
	}
	lasted, err := logDuration(l.Duration)
	if err != nil {
		return q, fmt.Errorf("duration: %w", err)
	}
	q = Request{T: ended - lasted, Canary: f.Variant != "off", Status: l.Status, FirstByte: f.FirstByte, Duration: &lasted, Outcome: f.Outcome, User: l.UserID}
	if a.User != "" {
		q.User = field(line, a.User)
	}
	return q, q.check()
}

// logTime reads the forms of time that Caddy's JSON encoder writes.
func logTime(raw json.RawMessage) (float64, error) {
	text := plain(raw)
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		switch { // seconds, milliseconds or nanoseconds since 1970
		case f > 1e17:
			return f / 1e9, nil
		case f > 1e11:
			return f / 1e3, nil
		}
		return f, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.000Z0700", "2006/01/02 15:04:05.000", "2006/01/02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return float64(t.UnixNano()) / 1e9, nil
		}
	}
	return 0, fmt.Errorf("want a time, got %q", text)
}

// logDuration reads the forms of a duration that Caddy's JSON encoder writes:
// seconds, or text with a unit.
func logDuration(raw json.RawMessage) (float64, error) {
	text := plain(raw)
	if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 {
		return f, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d.Seconds(), nil
	}
	return 0, fmt.Errorf("want seconds, got %q", text)
}

// field returns the text of a field by its path; "" when there is none.
func field(line []byte, path string) string {
	raw := json.RawMessage(line)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return ""
		}
		raw = object[name]
	}
	if len(raw) == 0 || bytes.ContainsAny(raw[:1], "{[") {
		return ""
	}
	return plain(raw)
}

// Sorter puts requests that come in the order of their end into that of their
// arrival, as far as none takes longer than its reach. The zero Sorter needs a
// reach.
type Sorter struct {
	Reach float64 // seconds

	waiting byArrival
	latest  float64 // end seen
	passed  float64 // arrival given out
}

type byArrival []Request

func (b byArrival) Len() int           { return len(b) }
func (b byArrival) Less(i, k int) bool { return b[i].T < b[k].T }
func (b byArrival) Swap(i, k int)      { b[i], b[k] = b[k], b[i] }
func (b *byArrival) Push(x any)        { *b = append(*b, x.(Request)) }
func (b *byArrival) Pop() any          { old := *b; x := old[len(old)-1]; *b = old[:len(old)-1]; return x }

// Add takes the next one and gives out those that nothing can come before any
// more.
func (s *Sorter) Add(q Request, out func(Request) error) error {
	heap.Push(&s.waiting, q)
	end := q.T
	if q.Duration != nil {
		end += *q.Duration
	}
	s.latest = max(s.latest, end)
	for len(s.waiting) > 0 && s.waiting[0].T < s.latest-s.Reach {
		if err := s.pop(out); err != nil {
			return err
		}
	}
	return nil
}

// Flush gives out the rest.
func (s *Sorter) Flush(out func(Request) error) error {
	for len(s.waiting) > 0 {
		if err := s.pop(out); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sorter) pop(out func(Request) error) error {
	q := heap.Pop(&s.waiting).(Request)
	if q.T < s.passed {
		q.T = s.passed // it took longer than the reach
	}
	s.passed = q.T
	return out(q)
}
