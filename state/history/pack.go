package history

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
	"strings"
)

// The row of all flags for one span is packed into parts, each a value of its own, so that pages of bbolt are filled
// and freed one by one, and never have to be found next to each other. A part is
//
//	version   1 byte, packVersion
//	checksum  4 bytes, big-endian CRC-32C of the key and of what follows
//	entries   each: length of flag, flag, length of fields, fields
//
// with flags ascending through all parts of a row, and the fields
//
//	present   1 byte: 1 LogE, 2 canary, 4 control, those that are not zero
//	status    length, text
//	numbers   percentage, TripAt, and LogE if present: in thousandths
//	cohorts   requests, errors, gone; 2 bytes, the bits of the latency buckets that are not zero; those
//
// Lengths and counts are unsigned varints, numbers signed ones.
const (
	packVersion = 1
	packHeader  = 5
	packSize    = 960 // Bytes of a part unless a single entry is longer: four fit a page with their keys.
)

const (
	hasLogE = 1 << iota
	hasCanary
	hasControl
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errPacked is the error of a part that cannot be read, errVersion of one that another version wrote.
var (
	errPacked  = errors.New("packed row is damaged")
	errVersion = errors.New("packed row is of another version")
)

// pack returns the parts of a row of the span that begins at the minute at. rows are tidy.
func pack(at uint32, rows []Row) (parts [][]byte) {
	var part, fields []byte
	flush := func() {
		if len(part) > 0 {
			seal(keyOf(at, len(parts)), part)
			parts = append(parts, part)
			part = nil
		}
	}
	for i := range rows {
		r := &rows[i]
		fields = appendFields(fields[:0], r)
		if len(part) > 0 && len(part)+len(r.Flag)+len(fields)+4 > packSize {
			flush()
		}
		if part == nil {
			part = make([]byte, packHeader, packSize)
		}
		part = binary.AppendUvarint(part, uint64(len(r.Flag)))
		part = append(part, r.Flag...)
		part = binary.AppendUvarint(part, uint64(len(fields)))
		part = append(part, fields...)
	}
	flush()
	return parts
}

// seal fills in the header of a part.
func seal(key, part []byte) {
	part[0] = packVersion
	binary.BigEndian.PutUint32(part[1:], checksum(key, part))
}

func checksum(key, part []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, part[packHeader:])
}

func appendFields(b []byte, r *Row) []byte {
	var present byte
	if r.LogE != nil {
		present |= hasLogE
	}
	if r.Canary != (Counts{}) {
		present |= hasCanary
	}
	if r.Control != (Counts{}) {
		present |= hasControl
	}
	b = append(b, present)
	b = binary.AppendUvarint(b, uint64(len(r.Status)))
	b = append(b, r.Status...)
	b = binary.AppendVarint(b, milli(r.Percentage))
	b = binary.AppendVarint(b, milli(r.TripAt))
	if r.LogE != nil {
		b = binary.AppendVarint(b, milli(*r.LogE))
	}
	if present&hasCanary != 0 {
		b = r.Canary.append(b)
	}
	if present&hasControl != 0 {
		b = r.Control.append(b)
	}
	return b
}

func (c *Counts) append(b []byte) []byte {
	b = binary.AppendUvarint(b, c.Requests)
	b = binary.AppendUvarint(b, c.Errors)
	b = binary.AppendUvarint(b, c.Gone)
	var set uint16
	for i, n := range c.Latency {
		if n > 0 {
			set |= 1 << i
		}
	}
	b = binary.BigEndian.AppendUint16(b, set)
	for ; set != 0; set &= set - 1 {
		b = binary.AppendUvarint(b, c.Latency[bits.TrailingZeros16(set)])
	}
	return b
}

// unseal checks a part and returns its entries.
func unseal(key, part []byte) (entries []byte, err error) {
	switch {
	case len(part) < packHeader:
		return nil, errPacked
	case part[0] != packVersion:
		return nil, errVersion
	case binary.BigEndian.Uint32(part[1:]) != checksum(key, part):
		return nil, errPacked
	}
	return part[packHeader:], nil
}

// next cuts the first entry off entries, which are not empty. Nothing is copied.
func next(entries []byte) (flag, fields, rest []byte, err error) {
	r := reader{b: entries}
	flag = r.bytes()
	fields = r.bytes()
	if r.bad {
		return nil, nil, nil, errPacked
	}
	return flag, fields, r.b, nil
}

// unpack appends the rows of a part to rows. With an error, rows are as they were.
func unpack(key, part []byte, rows []Row) ([]Row, error) {
	entries, err := unseal(key, part)
	if err != nil {
		return rows, err
	}
	had := len(rows)
	for len(entries) > 0 {
		flag, fields, rest, err := next(entries)
		if err != nil {
			return rows[:had], err
		}
		entries = rest
		r := Row{Flag: string(flag)}
		if err := r.read(fields); err != nil {
			return rows[:had], err
		}
		if n := len(rows); n > 0 && strings.Compare(rows[n-1].Flag, r.Flag) >= 0 {
			return rows[:had], errPacked
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// read sets everything but the flag.
func (row *Row) read(fields []byte) error {
	r := reader{b: fields}
	present := r.byte()
	row.Status = string(r.bytes())
	row.Percentage, row.TripAt = r.milli(), r.milli()
	if present&hasLogE != 0 {
		v := r.milli()
		row.LogE = &v
	}
	if present&hasCanary != 0 {
		r.counts(&row.Canary)
	}
	if present&hasControl != 0 {
		r.counts(&row.Control)
	}
	if r.bad || len(r.b) > 0 || present >= hasControl<<1 {
		return errPacked
	}
	return nil
}

// reader cuts values off b. Once one is not there it is bad, and gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) milli() float64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || v < -1000*maxNumber || v > 1000*maxNumber {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return ofMilli(v)
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) counts(c *Counts) {
	c.Requests, c.Errors, c.Gone = r.uvarint(), r.uvarint(), r.uvarint()
	set := uint16(r.byte())<<8 | uint16(r.byte())
	if set>>len(c.Latency) != 0 {
		r.bad = true
		return
	}
	for ; set != 0; set &= set - 1 {
		c.Latency[bits.TrailingZeros16(set)] = r.uvarint()
	}
}
