package webhook

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A record is one item of the queue in the file:
//
//	1 byte        version of the format
//	4 bytes       CRC-32C of all that follows, big endian
//	1 to 3 bytes  length of the head, as an unsigned varint
//	head          JSON, see recordHead
//	rest          the body

const (
	recordVersion = 1
	maxHead       = 8 << 10
	// maxRecord is more than any record needs.
	maxRecord = 1 + 4 + binary.MaxVarintLen64 + maxHead + MaxBody
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errRecord is wrapped by the error of a record that is damaged, unlike one of a version that is not known.
var errRecord = errors.New("damaged record")

type recordHead struct {
	Target string `json:"target"`
	Format Format `json:"format"`
	ID     string `json:"id"`
	Type   string `json:"type"`
	Flag   string `json:"flag,omitempty"`
	Queued int64  `json:"queued"` // Unix nanoseconds.
}

func encodeRecord(it *item) []byte {
	head := marshal(recordHead{it.target, it.format, it.id, it.eventType, it.flag, it.queued.UnixNano()})
	record := make([]byte, 5, 5+binary.MaxVarintLen64+len(head)+len(it.body))
	record[0] = recordVersion
	record = binary.AppendUvarint(record, uint64(len(head)))
	record = append(record, head...)
	return sealRecord(append(record, it.body...))
}

// sealRecord puts the checksum into a record.
func sealRecord(record []byte) []byte {
	binary.BigEndian.PutUint32(record[1:], crc32.Checksum(record[5:], castagnoli))
	return record
}

// decodeRecord returns the item of a record, a copy.
func decodeRecord(record []byte) (*item, error) {
	if len(record) < 5 || len(record) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes, want 5 to %d", errRecord, len(record), maxRecord)
	}
	if record[0] != recordVersion {
		return nil, fmt.Errorf("record of version %d, want %d", record[0], recordVersion)
	}
	rest := record[5:]
	if crc32.Checksum(rest, castagnoli) != binary.BigEndian.Uint32(record[1:]) {
		return nil, fmt.Errorf("%w: wrong checksum", errRecord)
	}
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > maxHead || size > uint64(len(rest)-n) {
		return nil, fmt.Errorf("%w: wrong length of the head", errRecord)
	}
	var head recordHead
	if err := json.Unmarshal(rest[n:n+int(size)], &head); err != nil {
		return nil, fmt.Errorf("%w: the head is not what it should be", errRecord)
	}
	body := rest[n+int(size):]
	if head.Target == "" || checkName(head.Target) != nil || !isID(head.ID) || head.Queued <= 0 || len(body) == 0 || len(body) > MaxBody {
		return nil, fmt.Errorf("%w: the head lacks what it needs", errRecord)
	}
	return &item{
		target: head.Target, format: head.Format, id: head.ID, eventType: head.Type, flag: head.Flag,
		queued: time.Unix(0, head.Queued), body: append([]byte(nil), body...),
	}, nil
}
