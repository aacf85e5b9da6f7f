package history

import (
	"encoding/binary"
	"math"
	"slices"

	"go.etcd.io/bbolt"
)

// expireRows removes rows that are past their time, the oldest first, and then rows that are further ahead than they
// would be kept for, the furthest first; most at a time, as now is not to be trusted: see the package's comment.
func (r *resolution) expireRows(tx *bbolt.Tx, b *bbolt.Bucket, now uint32, most int) error {
	past := int64(now) + 1 - int64(r.keep) - int64(r.step) + 1 // now is over, and so must the row be for as long as it is kept.
	rows, _, err := r.removeOldest(tx, b, past, func(rows int, _ int64) bool { return rows >= most })
	for most -= rows; err == nil && most > 0; most-- {
		k, _ := b.Cursor().Last()
		if k == nil || int64(atOf(k)) <= int64(now)+int64(r.keep) {
			break
		}
		err = removeRow(b, atOf(k), 0)
	}
	return err
}

// prune removes rows that take as many bytes as given, the oldest of the finest resolution first, but for the newest of
// each, which are spared as long as there are others.
func prune(tx *bbolt.Tx, now uint32, bytes int64) error {
	for _, spare := range []bool{true, false} {
		for _, r := range resolutions {
			before := int64(math.MaxInt64)
			if spare {
				before = int64(now) - int64(r.floor)
			}
			_, gone, err := r.removeOldest(tx, r.in(tx), before, func(_ int, gone int64) bool { return gone >= bytes })
			if err != nil {
				return err
			}
			bytes -= gone
		}
	}
	return nil
}

const element = 16 // Bytes that bbolt takes for a key and its value beside them.

// removeOldest removes rows of spans that begin before a time, until there are enough, and returns how many rows and
// bytes they were.
func (r *resolution) removeOldest(tx *bbolt.Tx, b *bbolt.Bucket, before int64, enough func(rows int, bytes int64) bool) (rows int, bytes int64, err error) {
	var keys [][]byte // A cursor does not bear changes.
	var last uint32
	c := b.Cursor()
	for k, v := c.First(); k != nil && int64(atOf(k)) < before; k, v = c.Next() {
		if at := atOf(k); rows == 0 || at != last {
			if enough(rows, bytes) {
				break
			}
			rows, last = rows+1, at
		}
		keys = append(keys, slices.Clone(k))
		bytes += int64(element + len(k) + len(v))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return 0, 0, err
		}
	}
	if rows == 0 {
		return 0, 0, nil
	}
	return rows, bytes, r.setSince(tx, last+r.step)
}

// since is the time before which rows were removed; 0: none were.
func (r *resolution) since(tx *bbolt.Tx) uint32 {
	v := tx.Bucket([]byte(stateBucket)).Get([]byte(r.bucket))
	if len(v) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

// setSince notes that rows before a time were removed.
func (r *resolution) setSince(tx *bbolt.Tx, at uint32) error {
	if at <= r.since(tx) {
		return nil
	}
	return tx.Bucket([]byte(stateBucket)).Put([]byte(r.bucket), binary.BigEndian.AppendUint32(nil, at))
}
