package history

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Tripped is the status that a span has as soon as one of its minutes has it.
const Tripped = "tripped"

const (
	maxName   = 512 // Bytes: 128 characters, which is what a flag's name may have.
	maxStatus = 32
	maxNumber = 1e6
)

// Counts are what one cohort of a flag came to in one span of time.
type Counts struct {
	Requests uint64
	Errors   uint64
	Gone     uint64                           // Of clients that left, which are no errors.
	Latency  [len(monitors.Bounds) + 1]uint64 // By bucket of monitors.Bounds, not cumulative.
}

// Add sums up.
func (c *Counts) Add(o Counts) {
	c.Requests += o.Requests
	c.Errors += o.Errors
	c.Gone += o.Gone
	for i, n := range o.Latency {
		c.Latency[i] += n
	}
}

// Row is one flag's share of a span of time.
type Row struct {
	Flag            string
	Canary, Control Counts
	LogE            *float64 // Natural logarithm of the guard's evidence; nil: none. The greatest of a span.
	TripAt          float64  // The LogE at which the guard trips.
	Percentage      float64  // Of the rollout.
	Status          string   // A short word such as on, split, tripped.
}

// requests is what busy means.
func (r *Row) requests() uint64 {
	return r.Canary.Requests + r.Control.Requests
}

// merge adds a row of the same flag that came later.
func (r *Row) merge(o Row) {
	r.Canary.Add(o.Canary)
	r.Control.Add(o.Control)
	if r.LogE == nil || (o.LogE != nil && *o.LogE > *r.LogE) {
		r.LogE = o.LogE
	}
	r.TripAt, r.Percentage = o.TripAt, o.Percentage
	if r.Status != Tripped {
		r.Status = o.Status
	}
}

// tidy returns rows as they can be stored, sorted by flag, each flag once, and the number of flags left out.
func tidy(rows []Row, most int) (kept []Row, dropped int) {
	clean := make([]Row, 0, len(rows))
	for _, r := range rows {
		if len(r.Flag) > maxName {
			dropped++
			continue
		}
		r.Flag = strings.Clone(r.Flag)
		if len(r.Status) > maxStatus {
			r.Status = strings.ToValidUTF8(r.Status[:maxStatus], "") // Without half a character.
		}
		r.Status = strings.Clone(r.Status)
		r.TripAt, r.Percentage = ofMilli(milli(r.TripAt)), ofMilli(milli(r.Percentage))
		if r.LogE != nil && math.IsNaN(*r.LogE) {
			r.LogE = nil
		} else if r.LogE != nil {
			v := ofMilli(milli(*r.LogE))
			r.LogE = &v
		}
		clean = append(clean, r)
	}
	kept, over := busiest(combine(nil, clean), most)
	return kept, dropped + over
}

// milli is a number in thousandths. What is not a number is 0, what is infinite as far as it goes.
func milli(f float64) int64 {
	if math.IsNaN(f) {
		return 0
	}
	return int64(math.Round(1000 * min(max(f, -maxNumber), maxNumber)))
}

func ofMilli(n int64) float64 {
	return float64(n) / 1000
}

// combine merges later rows into rows, and returns them sorted by flag. rows is sorted, each flag once; later need not
// be.
func combine(rows, later []Row) []Row {
	at := make(map[string]int, len(rows)+len(later))
	for i := range rows {
		at[rows[i].Flag] = i
	}
	for _, r := range later {
		if i, ok := at[r.Flag]; ok {
			rows[i].merge(r)
			continue
		}
		at[r.Flag] = len(rows)
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Flag, b.Flag) })
	return rows
}

// busiest returns the most flags with the most requests, sorted by flag, and how many there were beyond.
func busiest(rows []Row, most int) ([]Row, int) {
	over := len(rows) - most
	if over <= 0 {
		return rows, 0
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.requests(), a.requests()), strings.Compare(a.Flag, b.Flag))
	})
	rows = rows[:most]
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Flag, b.Flag) })
	return rows, over
}
