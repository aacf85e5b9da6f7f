package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// sampleLines are whole lines of every kind, an unknown one among them.
func sampleLines(t testing.TB) [][]byte {
	t.Helper()
	var lines [][]byte
	for i, r := range []record{
		{Trip: &Trip{ID: "t1", Flag: "a", Evidence: []byte(`{"x":[{"y":" {\"trip\""}]}`), At: start}},
		{Reset: &Reset{ID: "r1", Flag: "a", Trips: []string{"t1"}, At: start}},
		{Override: &Override{Flag: "b", Kind: Disabled, Revision: 7, At: start}},
		{Progress: &Progress{Flag: "c", Data: []byte(`[1,2]`), Revision: 8, At: start}},
		{},
		{Trip: &Trip{ID: "t2", Flag: "a", At: start}},
	} {
		line, err := encodeLine(r)
		if err != nil {
			t.Fatal(err)
		}
		if i == 4 {
			line = frameLine([]byte(`{"lease":{"of":"next year"}}`))
		}
		lines = append(lines, line)
	}
	return lines
}

func TestScan(t *testing.T) {
	lines := sampleLines(t)
	whole := string(bytes.Join(lines, nil))
	first, second := string(lines[0]), string(lines[1])
	bare := strings.TrimSuffix(second, "\n")
	for _, c := range []struct {
		name, text          string
		records, lost       int
		torn, damaged, open bool
	}{
		{name: "empty"},
		{name: "whole", text: whole, records: 6},
		{name: "torn in the checksum", text: first + bare[:5], records: 1, torn: true},
		{name: "torn behind the checksum", text: first + bare[:9], records: 1, torn: true},
		{name: "torn in the record", text: first + bare[:30], records: 1, torn: true},
		{name: "only the line feed is missing", text: first + bare, records: 2, open: true},
		{name: "CR LF", text: strings.ReplaceAll(first+second, "\n", "\r\n"), records: 2},
		{name: "blank lines", text: "\n" + first + "\n\n" + second, records: 2},
		{name: "a flipped byte", text: first + strings.Replace(second, "reset", "resez", 1) + first, records: 2, lost: 1, damaged: true},
		{name: "line feed became X", text: strings.TrimSuffix(first, "\n") + "X" + second, records: 2, damaged: true},
		{name: "line feed lost", text: strings.TrimSuffix(first, "\n") + second, records: 2, damaged: true},
		{name: "last line feed became X", text: first + bare + "X", records: 2, damaged: true},
		{name: "torn, then appended to", text: bare[:25] + first, records: 1, damaged: true},
		{name: "zeros at the end", text: first + strings.Repeat("\x00", 100), records: 1, lost: 1, damaged: true},
		{name: "zeros and a record", text: strings.Repeat("\x00", 100) + first, records: 1, damaged: true},
		{name: "another format", text: `{"trips": {}}` + "\n", lost: 1, damaged: true},
		{name: "another format on one line", text: `{"trips": {}}`, lost: 1, damaged: true},
		{name: "too long a line", text: first + strings.Repeat("x", maxLine+1) + "\n" + second, records: 2, lost: 1, damaged: true},
		{name: "too long a rest", text: first + strings.Repeat("0", maxLine+1), records: 1, lost: 1, damaged: true},
		{name: "invalid UTF-8", text: "\xff\xfe\n" + first, records: 1, lost: 1, damaged: true},
		{name: "not hexadecimal", text: "zzzzzzzz {}\n", lost: 1, damaged: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := readScan(strings.NewReader(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if len(s.lines) != c.records || s.lost != c.lost || s.torn != c.torn || s.damaged != c.damaged || s.ended == c.open {
				t.Errorf("%d records, %d lost, torn %v, damaged %v, ended %v; want %d, %d, %v, %v, %v",
					len(s.lines), s.lost, s.torn, s.damaged, s.ended, c.records, c.lost, c.torn, c.damaged, !c.open)
			}
			if !c.torn && s.good != int64(len(c.text)) {
				t.Errorf("good %d, want all of %d", s.good, len(c.text))
			}
		})
	}
}

func TestScanKeepsALongLine(t *testing.T) {
	line := frameLine(fmt.Appendf(nil, `{"later":"%s"}`, strings.Repeat("x", 2<<20)))
	s, err := readScan(bytes.NewReader(slices.Concat(line, line)))
	if err != nil || len(s.lines) != 2 || s.damaged || !bytes.Equal(s.lines[0].line, line) {
		t.Errorf("%d records, damaged %v, %v", len(s.lines), s.damaged, err)
	}
}

// TestScanOfAnyOneByteChanged changes each byte in each of three ways: no other record than its own may suffer, or at a
// line feed none.
func TestScanOfAnyOneByteChanged(t *testing.T) {
	lines := sampleLines(t)
	text := bytes.Join(lines, nil)
	for i := range text {
		for _, c := range []byte{0, '\n', text[i] ^ 1} {
			if c == text[i] {
				continue
			}
			changed := slices.Clone(text)
			changed[i] = c
			s, err := readScan(bytes.NewReader(changed))
			if err != nil {
				t.Fatal(err)
			}
			want := len(lines) - 1
			if text[i] == '\n' {
				want++
			}
			if len(s.lines) != want || !s.damaged {
				t.Errorf("byte %d as %q: %d records, damaged %v; want %d, true", i, c, len(s.lines), s.damaged, want)
			}
			for _, l := range s.lines {
				if !slices.ContainsFunc(lines, func(o []byte) bool { return bytes.Equal(o, l.line) }) {
					t.Errorf("byte %d as %q: made up %q", i, c, l.line)
				}
			}
		}
	}
}

// TestScanOfAnyPrefix cuts the text anywhere: that is what a killed process leaves, and no damage.
func TestScanOfAnyPrefix(t *testing.T) {
	text := bytes.Join(sampleLines(t), nil)
	for i := range text {
		s, err := readScan(bytes.NewReader(text[:i]))
		if err != nil || s.damaged || len(s.lines) < bytes.Count(text[:i], []byte{'\n'}) {
			t.Errorf("first %d bytes: %d records, damaged %v, %v", i, len(s.lines), s.damaged, err)
		}
	}
}

func FuzzScan(f *testing.F) {
	lines := sampleLines(f)
	text := bytes.Join(lines, nil)
	f.Add([]byte(nil), []byte(nil))
	f.Add(text, text[:len(text)-3])
	f.Add(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), []byte("\x00\x00"))
	f.Add([]byte("00000000 {\"a\n\n"), []byte(`d1f0a3b2 {"`))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		// Whole lines between anything and anything are read, if a line feed stands before them.
		input := slices.Concat(before, []byte{'\n'}, text, after)
		s, err := readScan(bytes.NewReader(input))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range lines {
			if !slices.ContainsFunc(s.lines, func(l scanned) bool { return bytes.Equal(l.line, want) }) {
				t.Errorf("lost %q", want)
			}
		}
		if s.good > int64(len(input)) || (!s.torn && s.good != int64(len(input))) {
			t.Errorf("good %d of %d, torn %v", s.good, len(input), s.torn)
		}
		// What is written of it is read back, with nothing to complain of.
		var again []byte
		for _, l := range s.lines {
			again = append(again, l.line...)
		}
		r, err := readScan(bytes.NewReader(again))
		if err != nil || r.damaged || r.torn || len(r.lines) != len(s.lines) {
			t.Errorf("second reading: %d records of %d, damaged %v, torn %v, %v", len(r.lines), len(s.lines), r.damaged, r.torn, err)
		}
	})
}
