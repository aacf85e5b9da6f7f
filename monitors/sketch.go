package monitors

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// sketch is a histogram of times to the first byte in buckets that grow with the
// time, so that a quantile is right to within sketchError of its value whatever
// the traffic looks like. Sketches merge by addition. Adding is one atomic
// addition; safe for concurrent use but for fade and merge. Of the range only what
// traffic reaches takes memory.
//
// Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
// relative-error guarantees", PVLDB 12 (2019), with buckets that divide each
// octave evenly, and a fixed range.
type sketch struct {
	chunks [sketchOctaves + 1]atomic.Pointer[[sketchChunk]atomic.Uint32]
}

const (
	sketchError   = 1.0 / 64
	sketchOctaves = 23
	sketchChunk   = 32 // buckets of an octave
	sketchBuckets = 1 + sketchOctaves*sketchChunk
	sketchFrom    = 1 << 16 * time.Nanosecond // 66 µs: all below is one bucket; the last ends at 550 s
)

// add counts one time.
func (s *sketch) add(d time.Duration) {
	i := sketchBucket(d)
	s.chunk(i)[i%sketchChunk].Add(1)
}

// chunk returns the part that holds bucket i, making it on first use.
func (s *sketch) chunk(i int) *[sketchChunk]atomic.Uint32 {
	place := &s.chunks[i/sketchChunk]
	if c := place.Load(); c != nil {
		return c
	}
	place.CompareAndSwap(nil, new([sketchChunk]atomic.Uint32))
	return place.Load()
}

// each calls f for every bucket that may have counts, in ascending order.
func (s *sketch) each(f func(i int, bucket *atomic.Uint32)) {
	for k := range s.chunks {
		if c := s.chunks[k].Load(); c != nil {
			for i := range c {
				f(k*sketchChunk+i, &c[i])
			}
		}
	}
}

// sketchBucket gives the octave, and the five bits below the leading one.
func sketchBucket(d time.Duration) int {
	if d < sketchFrom {
		return 0
	}
	octave := bits.Len64(uint64(d)) - 1
	return min(1+(octave-16)*sketchChunk+int(d>>(octave-5))&(sketchChunk-1), sketchBuckets-1)
}

// count returns how many times are in the sketch.
func (s *sketch) count() (n uint64) {
	s.each(func(_ int, b *atomic.Uint32) { n += uint64(b.Load()) })
	return n
}

// quantile returns the time that a share q of those counted did not exceed; 0
// when there are none.
func (s *sketch) quantile(q float64) time.Duration {
	total := s.count()
	if total == 0 {
		return 0
	}
	rank, below, found := q*float64(total-1), uint64(0), -1
	s.each(func(i int, b *atomic.Uint32) {
		if below += uint64(b.Load()); found < 0 && float64(below) > rank {
			found = i
		}
	})
	if found < 0 {
		found = sketchBuckets - 1
	}
	return sketchValue(found)
}

// sketchValue stands for all times of a bucket: its middle.
func sketchValue(i int) time.Duration {
	if i == 0 {
		return sketchFrom
	}
	octave, part := (i-1)/sketchChunk, (i-1)%sketchChunk
	lower := sketchFrom << octave
	return lower + lower/sketchChunk*time.Duration(part) + lower/sketchChunk/2
}

// merge adds another sketch's counts.
func (s *sketch) merge(o *sketch) {
	o.each(func(i int, b *atomic.Uint32) {
		if n := b.Load(); n > 0 {
			s.chunk(i)[i%sketchChunk].Add(n)
		}
	})
}

// fade halves all counts, rounding up one by one so that rare ones last.
func (s *sketch) fade() {
	s.each(func(_ int, b *atomic.Uint32) {
		if n := b.Load(); n > 1 {
			b.Add(^(n/2 - 1)) // minus n/2
		}
	})
}
