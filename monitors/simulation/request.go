package simulation

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Request is one request of a trace, as a line of JSON has it. All times are in
// seconds.
type Request struct {
	T         float64  `json:"t"` // of its arrival
	User      string   `json:"user,omitempty"`
	Canary    bool     `json:"canary"`
	Status    int      `json:"status,omitempty"`
	FirstByte *float64 `json:"ttfb,omitempty"`     // after arrival; missing or 0: the answer never began, or when it ended
	Duration  *float64 `json:"duration,omitempty"` // from arrival to the end
	Outcome   Outcome  `json:"outcome,omitempty"`  // "": what the status says
	Epoch     string   `json:"epoch,omitempty"`    // another one than before marks a change of the percentage
}

// Outcome is what a request came to.
type Outcome string

// The outcomes of a trace.
const (
	OK         Outcome = "ok"
	Error      Outcome = "error"
	Aborted    Outcome = "aborted" // broken off in the middle of the answer
	ClientGone Outcome = "client_gone"
	Unfinished Outcome = "unfinished" // never ended, as far as the trace goes
)

// ParseRequest reads one line. user and epoch may be numbers, too. The error says
// what is wrong with which field.
func ParseRequest(line []byte) (q Request, err error) {
	var fields map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(line))
	if err := dec.Decode(&fields); err != nil || fields == nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return q, fmt.Errorf("want a JSON object, got a %s", kind.Value)
		}
		return q, fmt.Errorf("want a JSON object: %w", cmp.Or(err, errors.New("got null")))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return q, errors.New("want one JSON object a line: text after it")
	}
	var t *float64
	for _, f := range []struct {
		name, want string
		into       any
	}{
		{"t", "seconds", &t},
		{"canary", "true or false", &q.Canary},
		{"status", "a number", &q.Status},
		{"ttfb", "seconds", &q.FirstByte},
		{"duration", "seconds", &q.Duration},
		{"outcome", "a text", &q.Outcome},
	} {
		if raw, ok := fields[f.name]; ok && json.Unmarshal(raw, f.into) != nil {
			return q, fmt.Errorf("%s: want %s, got %s", f.name, f.want, clip(raw))
		}
	}
	for _, f := range []struct {
		name string
		into *string
	}{{"user", &q.User}, {"epoch", &q.Epoch}} {
		raw := fields[f.name]
		if len(raw) > 0 && bytes.ContainsAny(raw[:1], "{[tf") {
			return q, fmt.Errorf("%s: want a text or a number, got %s", f.name, clip(raw))
		}
		*f.into = plain(raw)
	}
	if t == nil {
		return q, errors.New("t: is missing; want the time of arrival in seconds")
	}
	q.T = *t
	return q, q.check()
}

// clip keeps error texts short.
func clip(raw json.RawMessage) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "…"
	}
	return string(raw)
}

// plain is the text of a JSON string or number; "" for null and nothing.
func plain(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return strings.TrimSpace(string(raw))
}

func (q *Request) check() error {
	for _, f := range []struct {
		name  string
		value *float64
	}{{"t", &q.T}, {"ttfb", q.FirstByte}, {"duration", q.Duration}} {
		if f.value != nil && (math.IsNaN(*f.value) || math.Abs(*f.value) > 1e11) {
			return fmt.Errorf("%s: want seconds, got %g", f.name, *f.value)
		}
	}
	if q.Status != 0 && (q.Status < 100 || q.Status > 999) {
		return fmt.Errorf("status: want a number from 100 to 999, got %d", q.Status)
	}
	switch q.Outcome {
	case "", OK, Error, Aborted, ClientGone, Unfinished:
		return nil
	}
	return fmt.Errorf("outcome: want ok, error, aborted, client_gone or unfinished, got %q", q.Outcome)
}

// class is what the guard takes it for.
func (q *Request) class() monitors.Class {
	switch q.Outcome {
	case Error:
		if q.Status > 0 && q.Status < 500 {
			return monitors.FailedInside
		}
		return monitors.Failed
	case Aborted:
		return monitors.Aborted
	case ClientGone:
		return monitors.ClientGone
	case "":
		if q.Status >= 500 {
			return monitors.Failed
		}
	}
	return monitors.OK
}

// times returns when the answer began and when the request ended, after its
// arrival; negative: never.
func (q *Request) times() (firstByte, end time.Duration) {
	seconds := func(f *float64) time.Duration {
		if f == nil || *f <= 0 {
			return -1
		}
		return time.Duration(min(*f, 1e9) * float64(time.Second))
	}
	firstByte, end = seconds(q.FirstByte), seconds(q.Duration)
	if q.Outcome == Unfinished {
		return firstByte, -1
	}
	if end < 0 {
		end = max(firstByte, 0)
	}
	if firstByte < 0 && (q.Outcome == OK || q.Outcome == "" && q.Status > 0) {
		firstByte = end
	}
	if firstByte > end {
		end = firstByte
	}
	return firstByte, end
}
