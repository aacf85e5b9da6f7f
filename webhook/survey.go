package webhook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/boltfile"
)

// errDamaged is wrapped by the error of a file that must not be used.
var errDamaged = errors.New("damaged")

// stored is an item and its key in the file. Key 0: it is in none.
type stored struct {
	key  uint64
	item *item
}

// survey is what could be read of a queue file. It goes on behind a fault.
type survey struct {
	records  []stored // Of the bucket of the queue, in order.
	found    bool     // The bucket of the queue,
	expected uint64   // and its sequence, where commit keeps the number of records.
	faults   error    // The first fault.
}

// surveyFile returns what could be read of a file, and an error that wraps errDamaged when there is a fault anywhere; any
// other error is one of reading.
func surveyFile(file io.ReaderAt, size int64) (*survey, error) {
	s := &survey{}
	err := boltfile.Walk(file, size, boltfile.Options{BothMetas: true}, s)
	if errors.Is(err, boltfile.ErrManyBuckets) {
		err = s.Fault(err.Error())
	}
	if err != nil {
		return s, err
	}
	if !s.found || s.expected != uint64(len(s.records)) {
		s.fault("%d records, want %d", len(s.records), s.expected)
	}
	return s, s.faults
}

func (s *survey) fault(format string, args ...any) {
	if s.faults == nil {
		s.faults = fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
	}
}

// Fault implements [boltfile.Visitor].
func (s *survey) Fault(what string) error {
	s.fault("%s", what)
	return nil
}

// Buckets implements [boltfile.Visitor]: there is one, the bucket of the queue.
func (s *survey) Buckets(buckets []boltfile.Bucket) error {
	if len(buckets) != 1 || buckets[0].Name != bucketName {
		s.fault("something else than a queue is in it")
		return nil
	}
	s.found, s.expected = true, buckets[0].Sequence
	return nil
}

// Value implements [boltfile.Visitor] and takes a record.
func (s *survey) Value(bucket string, _ uint64, key, value []byte) error {
	if bucket != bucketName || len(key) != 8 {
		s.fault("a record has no key of 8 bytes")
		return nil
	}
	number := binary.BigEndian.Uint64(key)
	if n := len(s.records); number == 0 || (n > 0 && number <= s.records[n-1].key) {
		s.fault("records are out of order")
		return nil
	}
	it, err := decodeRecord(value)
	if errors.Is(err, errRecord) {
		s.fault("%v", err)
		return nil
	}
	// Of a later version: it stays where it is, without an item.
	s.records = append(s.records, stored{number, it})
	return nil
}
