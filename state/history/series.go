package history

import (
	"encoding/json"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Series is what happened to a flag. In JSON the step is in seconds.
type Series struct {
	Step   time.Duration // Of which each point is one, unless it is not over yet.
	Points []Point       // Ascending. A gap is a time without requests, or one that nothing is known of.
}

// Point is one step.
type Point struct {
	At         time.Time `json:"at"` // When it begins, in UTC.
	Canary     Figures   `json:"canary"`
	Control    Figures   `json:"control"`
	LogE       *float64  `json:"log_e"` // The greatest; null: no evidence.
	TripAt     float64   `json:"trip_at"`
	Percentage float64   `json:"percentage"`
	Status     string    `json:"status"`
}

// Figures are what people read about one cohort.
type Figures struct {
	Requests  uint64  `json:"requests"`
	Errors    uint64  `json:"errors"`
	ErrorRate float64 `json:"error_rate"` // Of the requests whose client did not leave, 0 to 1.
	P50       float64 `json:"p50"`        // Seconds to the first byte, interpolated within a bucket.
	P99       float64 `json:"p99"`
}

// seriesJSON is a series on the wire.
type seriesJSON struct {
	Step   float64 `json:"step"`
	Points []Point `json:"points"`
}

// MarshalJSON writes the step in seconds, and no points as an empty list.
func (s Series) MarshalJSON() ([]byte, error) {
	if s.Points == nil {
		s.Points = []Point{}
	}
	return json.Marshal(seriesJSON{s.Step.Seconds(), s.Points})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Series) UnmarshalJSON(b []byte) error {
	var v seriesJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	s.Step, s.Points = time.Duration(v.Step*float64(time.Second)), v.Points
	return nil
}

// Figures sums up for people.
func (c *Counts) Figures() Figures {
	m := monitors.Counts{Latency: c.Latency}
	f := Figures{Requests: c.Requests, Errors: c.Errors, P50: m.Quantile(0.5), P99: m.Quantile(0.99)}
	if c.Requests > c.Gone {
		f.ErrorRate = float64(c.Errors) / float64(c.Requests-c.Gone)
	}
	return f
}

// point is what is told of a row.
func (r *Row) point(at uint32) Point {
	return Point{
		At: timeOf(at), Canary: r.Canary.Figures(), Control: r.Control.Figures(),
		LogE: r.LogE, TripAt: r.TripAt, Percentage: r.Percentage, Status: r.Status,
	}
}
