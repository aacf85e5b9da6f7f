package state

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
	"time"
)

// crockford is the alphabet of ULIDs; it sorts like the numbers it stands for.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// maxMillis is the last millisecond that fits the 48 bits of an id: the year 10889.
const maxMillis = 1<<48 - 1

// idSource makes ULIDs: 48 bits of Unix milliseconds and 80 random bits in 26 characters. Later ids of one source are
// greater as text, also within a millisecond and when the clock goes back. The zero value is ready.
//
// Not safe for concurrent use. Specification: https://github.com/ulid/spec
type idSource struct {
	high, low uint64 // The last id: 48 bits of time and 16 random, 64 random.
}

// next returns a new id for the moment now.
func (s *idSource) next(now time.Time) string {
	// The read never fails: since Go 1.24 the process ends instead.
	var random [10]byte
	rand.Read(random[:])
	low := binary.BigEndian.Uint64(random[2:])
	if ms := min(uint64(max(now.UnixMilli(), 0)), maxMillis); ms > s.high>>16 {
		s.high, s.low = ms<<16|uint64(random[0])<<8|uint64(random[1]), low
	} else {
		// A random step instead of one, so that nobody can tell an id from its neighbour. A carry goes on, in the
		// end into the time.
		step := low>>32 + 1
		if s.low+step < s.low {
			s.high++
		}
		s.low += step
	}
	return encodeID(s.high, s.low)
}

// after has later ids be greater than one that was read, whatever the clock says. What
// is no id changes nothing.
func (s *idSource) after(id string) {
	var high, low uint64
	if len(id) != 26 || id[0] > '7' {
		return
	}
	for i := range len(id) {
		digit := strings.IndexByte(crockford, id[i])
		if digit < 0 {
			return
		}
		high, low = high<<5|low>>59, low<<5|uint64(digit)
	}
	if high > s.high || high == s.high && low > s.low {
		s.high, s.low = high, low
	}
}

func encodeID(high, low uint64) string {
	var id [26]byte
	for i := len(id) - 1; i >= 0; i-- {
		id[i] = crockford[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(id[:])
}
