package monitors

import (
	"slices"
	"sync"
	"time"
)

// Mirror compares what copies of requests came to with what the requests themselves
// did. Counting begins with the process. The zero Mirror is ready. Safe for
// concurrent use.
type Mirror struct {
	mu      sync.Mutex
	results [mirrorResults]uint64
	past    [2]sketch // times to the first byte of pairs that both have one: of the request, of the copy
	last    []MirrorPair
}

// MirrorResult is what a comparison comes to.
type MirrorResult uint8

// The results.
const (
	MirrorSame    MirrorResult = iota // the same status, and the same body where bodies are compared
	MirrorStatus                      // another status
	MirrorBody                        // the same status, another body
	MirrorFailed                      // no whole answer to the copy in its time
	MirrorUnknown                     // the request itself got no whole answer, or its client has left
	MirrorDropped                     // no copy was sent: there were enough under way
	mirrorResults
)

var mirrorWords = [mirrorResults]string{"same", "status", "body", "failed", "unknown", "dropped"}

// String is the word for metrics and the API.
func (r MirrorResult) String() string { return mirrorWords[r] }

// MirrorResults are all of them.
func MirrorResults() []MirrorResult {
	out := make([]MirrorResult, mirrorResults)
	for i := range out {
		out[i] = MirrorResult(i)
	}
	return out
}

// MirrorAnswer is how a request or its copy was answered.
type MirrorAnswer struct {
	Status    int           `json:"status,omitempty"` // 0: it was not
	FirstByte time.Duration `json:"-"`                // since the request was passed on
	Body      uint64        `json:"-"`                // a hash; 0: it is not compared
	Size      int64         `json:"bytes"`            // of the body
	Error     string        `json:"error,omitempty"`  // why it is not whole
	Seconds   float64       `json:"first_byte"`
}

// MirrorPair is a request and its copy.
type MirrorPair struct {
	At      time.Time    `json:"at"`
	ID      string       `json:"id"` // the request's, never who asked
	Result  string       `json:"result"`
	Request MirrorAnswer `json:"request"`
	Copy    MirrorAnswer `json:"copy"`
}

// mirrorKept bounds the differences that are shown.
const mirrorKept = 8

// Compare counts a request and its copy, when both have ended.
func (m *Mirror) Compare(p MirrorPair) MirrorResult {
	result := MirrorSame
	switch {
	case p.Request.Error != "":
		result = MirrorUnknown
	case p.Copy.Error != "":
		result = MirrorFailed
	case p.Request.Status != p.Copy.Status:
		result = MirrorStatus
	case p.Request.Body != p.Copy.Body:
		result = MirrorBody
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results[result]++
	if p.Request.Error == "" && p.Copy.Error == "" {
		m.past[0].add(p.Request.FirstByte)
		m.past[1].add(p.Copy.FirstByte)
	}
	if result != MirrorSame && result != MirrorUnknown {
		p.Result = result.String()
		p.Request.Seconds, p.Copy.Seconds = p.Request.FirstByte.Seconds(), p.Copy.FirstByte.Seconds()
		if len(m.last) == mirrorKept {
			m.last = slices.Delete(m.last, 0, 1)
		}
		m.last = append(m.last, p)
	}
	return result
}

// Drop counts a copy that was not sent.
func (m *Mirror) Drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results[MirrorDropped]++
}

// MirrorFigures are a mirror's figures.
type MirrorFigures struct {
	Results map[string]uint64 `json:"results"`
	Request MirrorTimes       `json:"request"`
	Copy    MirrorTimes       `json:"copy"`
	Last    []MirrorPair      `json:"last_different,omitempty"` // newest last
}

// MirrorTimes are quantiles of the times to the first byte, in seconds.
type MirrorTimes struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
}

// Figures returns the figures of the moment.
func (m *Mirror) Figures() MirrorFigures {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := MirrorFigures{Results: map[string]uint64{}, Last: slices.Clone(m.last)}
	for i, n := range m.results {
		f.Results[MirrorResult(i).String()] = n
	}
	times := func(s *sketch) MirrorTimes {
		q := func(q float64) float64 { return s.quantile(q).Seconds() }
		return MirrorTimes{q(0.5), q(0.9), q(0.99)}
	}
	f.Request, f.Copy = times(&m.past[0]), times(&m.past[1])
	return f
}
