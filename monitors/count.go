package monitors

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bounds are the upper ends of the latency buckets, in seconds to the first
// byte; the last bucket is open.
var Bounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

const latencyBuckets = len(Bounds) + 1

// bounds in nanoseconds, for comparing without division.
var bounds = func() (out [len(Bounds)]time.Duration) {
	for i, b := range Bounds {
		out[i] = time.Duration(b * float64(time.Second))
	}
	return out
}()

// Cell counts what requests came to that were decided one way: one variant of
// one flag, for one reason. Counting begins with the process. Safe for
// concurrent use; adding is one atomic addition.
type Cell struct {
	Variant string
	Reason  string
	Canary  bool // the flag is on

	rows [classes]atomic.Pointer[row]
	fine row        // of the class that nearly all are of, without a way to it
	mu   sync.Mutex // orders folding and reading
}

// newCell makes a cell that has counted nothing.
func newCell(variant, reason string, canary bool) *Cell {
	c := &Cell{Variant: variant, Reason: reason, Canary: canary}
	c.rows[OK].Store(&c.fine)
	return c
}

// row counts one class by latency bucket. The live counters hold the number in
// their upper 24 and the microseconds waited in their lower 40 bits, so that
// one addition does for both; fold empties them long before either overflows.
type row struct {
	live   [latencyBuckets]atomic.Uint64
	counts [latencyBuckets]uint64
	waited time.Duration
}

const (
	oneRequest = 1 << 40
	microsMask = oneRequest - 1
	foldCount  = 1 << 20    // requests
	foldMicros = 1 << 36    // 19 hours of waiting
	mostMicros = 60_000_000 // of one request: 18,000 of them fit between two folds
)

// Count counts one request by what it came to.
func (c *Cell) Count(o *Outcome) { c.Add(o.Class, o.wait()) }

// Add counts one request of a class that waited for its first byte, or in vain.
func (c *Cell) Add(class Class, wait time.Duration) {
	r := c.rows[class].Load()
	if r == nil {
		c.rows[class].CompareAndSwap(nil, new(row))
		r = c.rows[class].Load()
	}
	micros := uint64(max(wait, 0) / time.Microsecond)
	if micros > mostMicros { // rare, and too much for the live counter
		c.mu.Lock()
		r.waited += wait
		c.mu.Unlock()
		micros = 0
	}
	r.live[latencyBucket(wait)].Add(oneRequest | micros)
}

// fold moves live counts to where they cannot overflow, if they are large.
func (c *Cell) fold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for class := range c.rows {
		r := c.rows[class].Load()
		if r == nil {
			continue
		}
		for b := range r.live {
			if v := r.live[b].Load(); v>>40 >= foldCount || v&microsMask >= foldMicros {
				v = r.live[b].Swap(0)
				r.counts[b] += v >> 40
				r.waited += time.Duration(v&microsMask) * time.Microsecond
			}
		}
	}
}

func latencyBucket(d time.Duration) int {
	lo, hi := 0, len(bounds)
	for lo < hi {
		mid := (lo + hi) / 2
		if d <= bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// Counts are a cell's figures at one moment.
type Counts struct {
	Outcomes [classes]uint64        // by class
	Latency  [latencyBuckets]uint64 // by bucket, not cumulative
	Waited   time.Duration          // to the first byte, over all
}

// Total is the number of requests.
func (c *Counts) Total() (n uint64) {
	for _, o := range c.Outcomes {
		n += o
	}
	return n
}

// Add sums up.
func (c *Counts) Add(o Counts) {
	for i, n := range o.Outcomes {
		c.Outcomes[i] += n
	}
	for i, n := range o.Latency {
		c.Latency[i] += n
	}
	c.Waited += o.Waited
}

// Snapshot reads the cell.
func (c *Cell) Snapshot() (s Counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for class := range c.rows {
		r := c.rows[class].Load()
		if r == nil {
			continue
		}
		for b := range r.live {
			v := r.live[b].Load()
			n := r.counts[b] + v>>40
			s.Outcomes[class] += n
			s.Latency[b] += n
			s.Waited += time.Duration(v&microsMask) * time.Microsecond
		}
		s.Waited += r.waited
	}
	return s
}

// Figures are what people read about one cohort.
type Figures struct {
	Requests   uint64  `json:"requests"`
	Errors     uint64  `json:"errors"` // 5xx, failures, broken answers
	ClientGone uint64  `json:"client_gone"`
	ErrorRate  float64 `json:"error_rate"` // of the requests that did not leave, 0 to 1
	P50        float64 `json:"p50"`        // seconds to the first byte, interpolated within a bucket
	P90        float64 `json:"p90"`
	P99        float64 `json:"p99"`
}

// Figures sums counts up for people.
func (c *Counts) Figures() (f Figures) {
	f.Requests, f.ClientGone = c.Total(), c.Outcomes[ClientGone]
	for class, n := range c.Outcomes {
		if Class(class).IsError() {
			f.Errors += n
		}
	}
	if n := f.Requests - f.ClientGone; n > 0 {
		f.ErrorRate = float64(f.Errors) / float64(n)
	}
	f.P50, f.P90, f.P99 = c.Quantile(0.5), c.Quantile(0.9), c.Quantile(0.99)
	return f
}

// Quantile returns the time to the first byte, in seconds, that a share q of
// the requests did not exceed; 0 without requests. It interpolates within the
// bucket, as Prometheus' histogram_quantile does; the open bucket gives its
// lower bound.
func (c *Counts) Quantile(q float64) float64 {
	var total, below uint64
	for _, n := range c.Latency {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := q * float64(total)
	for i, n := range c.Latency {
		if float64(below+n) >= rank && n > 0 {
			if i == len(Bounds) {
				return Bounds[i-1]
			}
			low := 0.0
			if i > 0 {
				low = Bounds[i-1]
			}
			return low + (Bounds[i]-low)*(rank-float64(below))/float64(n)
		}
		below += n
	}
	return Bounds[len(Bounds)-1]
}
