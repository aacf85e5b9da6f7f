package history

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genCounts(t *rapid.T, label string) (c Counts) {
	if rapid.Bool().Draw(t, label+" none") {
		return c
	}
	n := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64())
	c.Requests, c.Errors, c.Gone = n.Draw(t, label+" requests"), n.Draw(t, label+" errors"), n.Draw(t, label+" gone")
	for range rapid.IntRange(0, 6).Draw(t, label+" buckets") {
		c.Latency[rapid.IntRange(0, len(c.Latency)-1).Draw(t, label+" bucket")] = n.Draw(t, label+" latency")
	}
	return c
}

func genRow(flags *rapid.Generator[string]) *rapid.Generator[Row] {
	return rapid.Custom(func(t *rapid.T) Row {
		r := Row{
			Flag:       flags.Draw(t, "flag"),
			Canary:     genCounts(t, "canary"),
			Control:    genCounts(t, "control"),
			TripAt:     rapid.Float64().Draw(t, "trip at"),
			Percentage: rapid.Float64Range(0, 100).Draw(t, "percentage"),
			Status:     rapid.SampledFrom([]string{"on", "split", Tripped, "", strings.Repeat("é", 20)}).Draw(t, "status"),
		}
		if rapid.Bool().Draw(t, "evidence") {
			v := rapid.OneOf(rapid.Float64Range(-20, 20), rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1)})).Draw(t, "log e")
			r.LogE = &v
		}
		return r
	})
}

func unpackAll(at uint32, parts [][]byte) (rows []Row, err error) {
	for i, p := range parts {
		if rows, err = unpack(keyOf(at, i), p, rows); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func TestPackedRowsComeBack(t *testing.T) {
	flags := rapid.OneOf(rapid.StringN(0, 10, 40), rapid.StringN(100, 128, 512))
	rapid.Check(t, func(t *rapid.T) {
		rows, dropped := tidy(rapid.SliceOfN(genRow(flags), 0, 40).Draw(t, "rows"), 30)
		if len(rows) > 30 || (dropped > 0 && len(rows) < 30) {
			t.Fatalf("%d rows and %d dropped", len(rows), dropped)
		}
		at := rapid.Uint32().Draw(t, "at")
		parts := pack(at, rows)
		for i, p := range parts {
			if len(p) > packSize+50 {
				t.Errorf("part of %d bytes", len(p))
			}
			if _, err := unpack(keyOf(at, i+1), p, nil); err != errPacked {
				t.Errorf("under another key: %v", err)
			}
		}
		got, err := unpackAll(at, parts)
		if err != nil || len(got) != len(rows) || (len(rows) > 0 && !reflect.DeepEqual(got, rows)) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, rows)
		}
		if again := pack(at, got); !reflect.DeepEqual(again, parts) {
			t.Error("packed differently the second time")
		}
	})
}

// TestEveryFlippedBitIsNoticed flips each bit of a part.
func TestEveryFlippedBitIsNoticed(t *testing.T) {
	part := pack(77, busyRows(3, 1))[0]
	for bit := range len(part) * 8 {
		flipped := bytes.Clone(part)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := unpack(keyOf(77, 0), flipped, nil); err == nil {
			t.Errorf("bit %d is not noticed", bit)
		}
	}
	for n := range part {
		if _, err := unpack(keyOf(77, 0), part[:n], nil); err == nil {
			t.Errorf("cut off at %d is not noticed", n)
		}
	}
}

func TestRowOfAnotherVersion(t *testing.T) {
	part := pack(77, busyRows(1, 1))[0]
	part[0]++
	if _, err := unpack(keyOf(77, 0), part, nil); err != errVersion {
		t.Errorf("got %v", err)
	}
}

// FuzzUnpack reads arbitrary bytes, as they are and under a checksum that holds: it takes no memory beyond a multiple of
// what it is given, and what it accepts packs to something that it reads as the same.
func FuzzUnpack(f *testing.F) {
	for _, p := range pack(77, busyRows(40, 1)) {
		f.Add(p)
	}
	f.Add([]byte{})
	f.Add([]byte{packVersion, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add(append(bytes.Repeat([]byte{0}, packHeader), 0, 4, 1, 0, 0, 0))
	f.Fuzz(func(t *testing.T, part []byte) {
		key := keyOf(77, 0)
		_, _ = unpack(key, part, nil)
		if len(part) < packHeader {
			return
		}
		part = bytes.Clone(part)
		seal(key, part)
		rows, err := unpack(key, part, nil)
		if len(rows) > len(part) {
			t.Fatalf("%d rows of %d bytes", len(rows), len(part))
		}
		if err != nil {
			if len(rows) > 0 {
				t.Errorf("%d rows beside an error", len(rows))
			}
			return
		}
		again, err := unpackAll(77, pack(77, rows))
		if err != nil || (len(rows) > 0 && !reflect.DeepEqual(again, rows)) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, again, rows)
		}
	})
}

func TestUnpackTakesNoMemoryForLengths(t *testing.T) {
	part := append(make([]byte, packHeader), 255, 255, 255, 255, 255, 255, 255, 255, 127)
	seal(keyOf(1, 0), part)
	if n := testing.AllocsPerRun(100, func() { unpack(keyOf(1, 0), part, nil) }); n > 4 {
		t.Errorf("%v allocations", n)
	}
}
