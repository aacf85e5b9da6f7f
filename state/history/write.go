package history

import (
	"encoding/binary"
	"errors"
	"slices"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// write brings the file up to date with minutes, in one transaction: all of it or nothing.
func (f *file) write(entries []*entry, session [8]byte) error {
	if err := f.options.fault("write"); err != nil {
		return err
	}
	err := f.writeOnce(entries, session)
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		// The free pages did not do, against expectation.
		now := entries[len(entries)-1].at
		err = f.update(func(tx *bbolt.Tx) error { return prune(tx, now, f.options.MaxBytes/8) })
		if err == nil {
			err = f.writeOnce(entries, session)
		}
	}
	if st, err := f.f.Stat(); err == nil {
		f.size.Store(st.Size())
	}
	return err
}

func (f *file) writeOnce(entries []*entry, session [8]byte) error {
	return f.update(func(tx *bbolt.Tx) error {
		done := applied(tx, session)
		for len(entries) > 0 && entries[0].number <= done { // By an attempt that seemed to have failed.
			entries = entries[1:]
		}
		if len(entries) == 0 {
			return nil
		}
		last := entries[len(entries)-1]
		if over := f.used(tx) - f.options.room(); over > 0 {
			if err := prune(tx, last.at, over); err != nil {
				return err
			}
		}
		rows := make([][]Row, len(entries))
		for i, e := range entries {
			rows[i] = e.rows()
		}
		for _, r := range resolutions {
			b := r.in(tx)
			if err := r.add(b, entries, rows, f.options.MaxFlags); err != nil {
				return err
			}
			if err := r.expireRows(tx, b, last.at, r.expire*len(entries)); err != nil {
				return err
			}
		}
		v := binary.BigEndian.AppendUint64(session[:], last.number)
		return tx.Bucket([]byte(stateBucket)).Put(appliedKey, v)
	})
}

// room is how many bytes may be in use: the rest is for the pages that a transaction writes before those it replaces are
// free, and for what the file grows ahead.
func (o Options) room() int64 {
	return o.MaxBytes - max(o.MaxBytes/8, 1<<20)
}

// used returns how many bytes of the file are in use.
func (f *file) used(tx *bbolt.Tx) int64 {
	s := f.db.Stats()
	return tx.Size() - int64(s.FreePageN+s.PendingPageN)*pageSize
}

func (r *resolution) in(tx *bbolt.Tx) *bbolt.Bucket {
	b := tx.Bucket([]byte(r.bucket))
	b.FillPercent = 1 // Keys come in order.
	return b
}

// add adds minutes to the rows of the spans that they are in.
func (r *resolution) add(b *bbolt.Bucket, entries []*entry, rows [][]Row, maxFlags int) error {
	for i := 0; i < len(entries); {
		span := r.span(entries[i].at)
		sum := combine(readRow(b, span), rows[i])
		for i++; i < len(entries) && r.span(entries[i].at) == span; i++ {
			sum = combine(sum, rows[i])
		}
		sum, _ = busiest(sum, maxFlags)
		if err := putRow(b, span, pack(span, sum)); err != nil {
			return err
		}
	}
	return nil
}

// readRow returns the row of a span, without parts that cannot be read.
func readRow(b *bbolt.Bucket, at uint32) (rows []Row) {
	c := b.Cursor()
	for k, v := c.Seek(keyOf(at, 0)); k != nil && atOf(k) == at; k, v = c.Next() {
		rows, _ = unpack(k, v, rows)
	}
	return rows
}

// putRow replaces the row of a span.
func putRow(b *bbolt.Bucket, at uint32, parts [][]byte) error {
	for i, p := range parts {
		if err := b.Put(keyOf(at, i), p); err != nil {
			return err
		}
	}
	return removeRow(b, at, len(parts))
}

// removeRow removes the parts of a row from a number on.
func removeRow(b *bbolt.Bucket, at uint32, from int) error {
	var keys [][]byte // A cursor does not bear changes.
	c := b.Cursor()
	for k, _ := c.Seek(keyOf(at, from)); k != nil && atOf(k) == at; k, _ = c.Next() {
		keys = append(keys, slices.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
