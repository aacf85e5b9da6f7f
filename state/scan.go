package state

import (
	"bufio"
	"errors"
	"io"
)

// scan is what reading a journal found.
type scan struct {
	lines   []scanned
	good    int64 // Bytes from the beginning to the end of the last whole line.
	ended   bool  // Whether the last whole line has its line feed.
	torn    bool  // Whether something behind good is to be cut off: an append that did not finish.
	damaged bool  // Whether anything else was found that no append leaves.
	lost    int   // Damaged lines that held no record whose checksum holds.
	blanks  int   // Empty lines; they are not damage.
}

// scanned is one record of a journal.
type scanned struct {
	record record
	line   []byte // With its checksum and line feed.
}

// add keeps a payload whose checksum holds.
func (s *scan) add(payload []byte) {
	s.lines = append(s.lines, scanned{record: decodeRecord(payload), line: frameLine(payload)})
}

// salvage keeps what can be read inside a damaged line.
func (s *scan) salvage(line []byte) {
	s.damaged = true
	payloads := salvageLine(line)
	for _, p := range payloads {
		s.add(p)
	}
	if len(payloads) == 0 {
		s.lost++
	}
}

// readScan reads a journal to its end. It returns an error only when r does.
func readScan(r io.Reader) (scan, error) {
	s := scan{ended: true}
	in := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for {
		var length int64
		var err error
		line, length, err = readLine(in, line[:0])
		if err != nil && !errors.Is(err, io.EOF) {
			return s, err
		}
		whole := err == nil
		switch payload, ok := checkLine(line); {
		case length > maxLine:
			s.damaged = true
			s.lost++
		case ok:
			s.add(payload)
			s.ended = whole
		case length == 0:
			if whole {
				s.blanks++
			}
		case whole:
			s.salvage(line)
		default:
			if last, ok := checkLine(line[:len(line)-1]); ok {
				s.damaged = true // Only the line feed is wrong: no append leaves that.
				s.add(last)
			} else if looksTorn(line) {
				s.torn = true
				return s, nil
			} else {
				s.salvage(line)
			}
		}
		s.good += length
		if !whole {
			return s, nil
		}
		s.good++
	}
}

// readLine reads up to the next line feed, which is not part of the line, or to the end of the input, with io.EOF. Of a
// line longer than maxLine only the length is right.
func readLine(in *bufio.Reader, line []byte) ([]byte, int64, error) {
	var length int64
	for {
		part, err := in.ReadSlice('\n')
		length += int64(len(part))
		if err == nil {
			length--
			part = part[:len(part)-1]
		}
		if length <= maxLine {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, length, err
		}
	}
}
