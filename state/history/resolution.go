package history

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Times in the file are minutes since 1970, and spans begin at multiples of their length, in UTC.

// resolution is one of the lengths of spans that are kept.
type resolution struct {
	bucket string
	step   uint32 // Minutes.
	keep   uint32 // Minutes until a row is past its time.
	floor  uint32 // Minutes, the newest, that give way to coarser rows only when nothing else is left.
	expire int    // Rows that may be removed for their time with each minute added.
}

// grace is how many minutes rows are kept for longer, so that who asks for two days of minutes finds them, though some
// time passes between the asking and the answer.
const grace = 60

// resolutions, the finest first. expire is more than what comes, so that the number of rows goes down to what is to be
// kept, and so little that an hour of a wrong clock does little harm.
var resolutions = [...]resolution{
	{bucket: "minutes", step: 1, keep: 2*24*60 + grace, floor: 2 * 60, expire: 2},
	{bucket: "fives", step: 5, keep: 14*24*60 + grace, floor: 24 * 60, expire: 1},
	{bucket: "hours", step: 60, keep: 90*24*60 + grace, floor: 24 * 60, expire: 1},
}

// span is when the span begins that a minute is in.
func (r *resolution) span(at uint32) uint32 {
	return at - at%r.step
}

func (r *resolution) duration() time.Duration {
	return time.Duration(r.step) * time.Minute
}

// latest is the year 10000, which JSON cannot write and the keys could not hold much more than.
var latest = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)

// minuteOf returns the minute that a time is in.
func minuteOf(t time.Time) (uint32, error) {
	if t.Unix() < 0 || !t.Before(latest) {
		return 0, fmt.Errorf("minute %s: want one from 1970 to 9999", t.UTC().Format(time.RFC3339))
	}
	return uint32(t.Unix() / 60), nil
}

// clampMinute is the minute that a time is in, or the nearest that there is. up has one that is not whole count.
func clampMinute(t time.Time, up bool) uint32 {
	switch {
	case t.Unix() < 0:
		return 0
	case !t.Before(latest):
		t = latest
	}
	n := uint32(t.Unix() / 60)
	if up && (t.Unix()%60 != 0 || t.Nanosecond() != 0) {
		n++
	}
	return n
}

func timeOf(at uint32) time.Time {
	return time.Unix(int64(at)*60, 0).UTC()
}

// keySize is the length of the key of a part: when its span begins, 4 bytes, and its number within the row, 2 bytes,
// both big-endian.
const keySize = 6

func keyOf(at uint32, part int) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(make([]byte, 0, keySize), at), uint16(part))
}

// atOf is when the span of a key begins.
func atOf(key []byte) uint32 {
	if len(key) != keySize {
		return 0
	}
	return binary.BigEndian.Uint32(key)
}
