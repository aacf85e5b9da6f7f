package monitors

import (
	"math/bits"
	"time"
)

// sketch is a histogram of times to the first byte in buckets that grow with the
// time, so that a quantile is right to within sketchError of its value whatever
// the traffic looks like. Sketches merge by addition. Of the range only what
// traffic reaches takes memory. Not safe for concurrent use.
//
// Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
// relative-error guarantees", PVLDB 12 (2019), with buckets that divide each
// octave evenly, and a fixed range.
type sketch struct {
	chunks [sketchOctaves + 1]*[sketchChunk]uint32
	fades  uint32
}

const (
	sketchError   = 1.0 / 64
	sketchOctaves = 23
	sketchChunk   = 32   // buckets of an octave
	sketchKeeps   = 1000 // times: of fewer none is forgotten
	sketchBuckets = 1 + sketchOctaves*sketchChunk
	sketchFrom    = 1 << 16 * time.Nanosecond // 66 µs: all below is one bucket; the last ends at 550 s
)

// add counts one time.
func (s *sketch) add(d time.Duration) {
	*s.bucket(sketchBucket(d))++
}

// bucket returns bucket i, making its part of the sketch on first use.
func (s *sketch) bucket(i int) *uint32 {
	c := s.chunks[i/sketchChunk]
	if c == nil {
		c = new([sketchChunk]uint32)
		s.chunks[i/sketchChunk] = c
	}
	return &c[i%sketchChunk]
}

// each calls f for every bucket that may have counts, in ascending order.
func (s *sketch) each(f func(i int, bucket *uint32)) {
	for k, c := range s.chunks {
		if c != nil {
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
	s.each(func(_ int, b *uint32) { n += uint64(*b) })
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
	s.each(func(i int, b *uint32) {
		if below += uint64(*b); found < 0 && float64(below) > rank {
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
	o.each(func(i int, b *uint32) {
		if *b > 0 {
			*s.bucket(i) += *b
		}
	})
}

// fade halves the counts, where there are many. What is left over of one bucket
// goes to the next, so that the whole is halved, and rare ones go as the others do.
func (s *sketch) fade() {
	if s.count() < sketchKeeps {
		return
	}
	left := s.fades & 1
	s.fades++
	s.each(func(_ int, b *uint32) {
		n := *b + left
		*b, left = n/2, n&1
	})
}
