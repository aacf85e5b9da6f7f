package simulation

import (
	"bytes"
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
	T         float64     `json:"t"` // of its arrival
	User      string      `json:"user,omitempty"`
	Canary    bool        `json:"canary"`
	Status    int         `json:"status,omitempty"`
	FirstByte *float64    `json:"ttfb,omitempty"`     // after arrival; missing or 0: the answer never began, or when it ended
	Duration  *float64    `json:"duration,omitempty"` // from arrival to the end
	Outcome   Outcome     `json:"outcome,omitempty"`  // "": what the status says
	Epoch     json.Number `json:"epoch,omitempty"`    // any text or number; another one than before marks a change of the percentage
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

// ParseRequest reads one line. The error says what is wrong with which field.
func ParseRequest(line []byte) (q Request, err error) {
	var raw struct {
		Request
		User  json.RawMessage `json:"user"`
		Epoch json.RawMessage `json:"epoch"`
		T     *float64        `json:"t"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	if err := dec.Decode(&raw); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return q, fmt.Errorf("%s: want a %s, got a %s", kind.Field, kind.Type, kind.Value)
		}
		return q, fmt.Errorf("want a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return q, errors.New("want one JSON object a line: text after it")
	}
	q = raw.Request
	q.User, q.Epoch = plain(raw.User), json.Number(plain(raw.Epoch))
	if raw.T == nil {
		return q, errors.New("t: is missing; want the time of arrival in seconds")
	}
	q.T = *raw.T
	return q, q.check()
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
