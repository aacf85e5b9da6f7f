package webhook

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleItem() *item {
	return &item{
		target: "hooks.example#1a2b3c", format: Slack, id: "evt_1", eventType: Tripped, flag: "checkout \"é\"",
		queued: time.Unix(1_800_000_000, 5), body: []byte(`{"text":"x"}`),
	}
}

func TestRecords(t *testing.T) {
	it := sampleItem()
	record := encodeRecord(it)
	got, err := decodeRecord(record)
	if err != nil || !reflect.DeepEqual(got, it) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i := range record {
		bad := bytes.Clone(record)
		bad[i] ^= 0x10
		if _, err := decodeRecord(bad); err == nil || (i > 0) != errors.Is(err, errRecord) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := decodeRecord(record[:i]); err == nil {
			t.Errorf("cut to %d bytes: decoded", i)
		}
	}
}

func TestRecordsThatFitTheirLimits(t *testing.T) {
	e := Event{Type: strings.Repeat("\x01", 500), Flag: strings.Repeat("\"\n", 500)}.clean(when)
	it := &item{
		target: strings.Repeat("x", maxName), format: CloudEvents, id: strings.Repeat("i", maxID), eventType: e.Type, flag: e.Flag,
		queued: when, body: make([]byte, MaxBody),
	}
	got, err := decodeRecord(encodeRecord(it))
	if err != nil || got.flag != it.flag || got.eventType != it.eventType || got.identity() != it.identity() {
		t.Errorf("got %v, %v", got, err)
	}
}

// FuzzRecord decodes anything without panicking; what can be decoded can be stored again, and is the same then.
func FuzzRecord(f *testing.F) {
	f.Add(encodeRecord(sampleItem()))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, record []byte) {
		for _, r := range [][]byte{record, withChecksum(record)} {
			it, err := decodeRecord(r)
			if err != nil {
				continue
			}
			again, err := decodeRecord(encodeRecord(it))
			if err != nil || !reflect.DeepEqual(it, again) {
				t.Fatalf("%+v became %+v, %v", it, again, err)
			}
		}
	})
}

// withChecksum makes the checksum true, so that a fuzzer comes behind it.
func withChecksum(record []byte) []byte {
	if len(record) < 5 {
		return record
	}
	return sealRecord(append([]byte{recordVersion}, record[1:]...))
}
