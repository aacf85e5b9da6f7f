package monitors

import (
	"math"
	"sync/atomic"
	"time"
)

// sketch is a histogram of times to the first byte in buckets that grow by a
// constant factor, so that a quantile is right to within sketchError of its
// value whatever the traffic looks like. Sketches merge by addition. Adding is
// one atomic addition; safe for concurrent use but for fade and merge.
//
// Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
// relative-error guarantees", PVLDB 12 (2019), with a fixed range.
type sketch struct {
	buckets [sketchBuckets]atomic.Uint32
}

const (
	sketchError   = 0.02
	sketchBuckets = 384
	sketchFrom    = 100 * time.Microsecond // all below is one bucket; the last begins at more than 400 s
)

var sketchScale = 1 / math.Log((1+sketchError)/(1-sketchError))

// add counts one time.
func (s *sketch) add(d time.Duration) { s.buckets[sketchBucket(d)].Add(1) }

func sketchBucket(d time.Duration) int {
	if d <= sketchFrom {
		return 0
	}
	return min(1+int(math.Log(float64(d)/float64(sketchFrom))*sketchScale), sketchBuckets-1)
}

// count returns how many times are in the sketch.
func (s *sketch) count() (n uint64) {
	for i := range s.buckets {
		n += uint64(s.buckets[i].Load())
	}
	return n
}

// quantile returns the time that a share q of those counted did not exceed; 0
// when there are none.
func (s *sketch) quantile(q float64) time.Duration {
	total := s.count()
	if total == 0 {
		return 0
	}
	rank, below := q*float64(total-1), uint64(0)
	for i := range s.buckets {
		below += uint64(s.buckets[i].Load())
		if float64(below) > rank {
			return sketchValue(i)
		}
	}
	return sketchValue(sketchBuckets - 1)
}

// sketchValue stands for all times of a bucket.
func sketchValue(i int) time.Duration {
	if i == 0 {
		return sketchFrom
	}
	upper := float64(sketchFrom) * math.Exp(float64(i)/sketchScale)
	return time.Duration(upper * (1 - sketchError)) // the middle: 2γ/(γ+1) of the lower end
}

// merge adds another sketch's counts.
func (s *sketch) merge(o *sketch) {
	for i := range s.buckets {
		s.buckets[i].Add(o.buckets[i].Load())
	}
}

// fade halves all counts, rounding up one by one so that rare ones last.
func (s *sketch) fade() {
	for i := range s.buckets {
		if n := s.buckets[i].Load(); n > 1 {
			s.buckets[i].Add(^(n/2 - 1)) // minus n/2
		}
	}
}
