package state

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// A line of a journal is eight hexadecimal digits, the CRC-32C of the payload, a space, the payload, which is one JSON
// object without spaces between its tokens, and a line feed:
//
//	d1f0a3b2 {"trip":{"id":"01K…","flag":"checkout",…}}
const (
	sumDigits  = 8
	lineHead   = sumDigits + 1
	maxLine    = 8 << 20 // Longer lines are damage: a record made here is at most a little over MaxData.
	maxResyncs = 64      // Places in one damaged line that are tried as the beginning of a record.
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeLine returns the line of r, with its line feed.
func encodeLine(r record) ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding record: %w", err)
	}
	return frameLine(payload), nil
}

// frameLine returns the line of a payload.
func frameLine(payload []byte) []byte {
	line := make([]byte, 0, lineHead+len(payload)+1)
	line = fmt.Appendf(line, "%08x ", crc32.Checksum(payload, castagnoli))
	line = append(line, payload...)
	return append(line, '\n')
}

// checkLine returns the payload of a line without its line feed, and whether its checksum holds.
func checkLine(line []byte) (payload []byte, ok bool) {
	if len(line) < lineHead+2 || line[sumDigits] != ' ' || line[lineHead] != '{' {
		return nil, false
	}
	var sum [sumDigits / 2]byte
	if _, err := hex.Decode(sum[:], line[:sumDigits]); err != nil {
		return nil, false
	}
	// An editor that ends lines with CR LF adds a byte that compact JSON never holds.
	payload = bytes.TrimSuffix(line[lineHead:], []byte{'\r'})
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	return payload, crc32.Checksum(payload, castagnoli) == want
}

// salvageLine returns the payloads whose checksums hold inside a line that as a whole is damaged: two records run
// together where a line feed was lost, or a torn record with a whole one behind it. A payload cannot hold the pattern
// looked for, a space between tokens and then {", so that no evidence is ever taken for a record.
func salvageLine(line []byte) (payloads [][]byte) {
	start := 0 // Of the piece that has not been accounted for.
	keep := func(piece []byte) {
		for cut := range 2 { // Without its last byte: the damaged line feed.
			if len(piece) < cut {
				return
			}
			if p, ok := checkLine(piece[:len(piece)-cut]); ok {
				payloads = append(payloads, p)
				return
			}
		}
	}
	at := 0
	for range maxResyncs {
		i := bytes.Index(line[at:], []byte(` {"`))
		if i < 0 {
			break
		}
		at += i + 1
		if begin := at - lineHead; begin > start && isHex(line[begin:begin+sumDigits]) {
			keep(line[start:begin])
			start = begin
		}
	}
	keep(line[start:])
	return payloads
}

// looksTorn tells whether the rest of a file behind its last line feed is what an append that did not finish leaves:
// the beginning of a line.
func looksTorn(rest []byte) bool {
	for i, c := range rest[:min(len(rest), lineHead+2)] {
		switch {
		case i < sumDigits && !isHex([]byte{c}),
			i == sumDigits && c != ' ',
			i == lineHead && c != '{',
			i == lineHead+1 && c != '"':
			return false
		}
	}
	return true
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
