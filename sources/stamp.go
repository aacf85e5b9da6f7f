package sources

import (
	"io/fs"
	"os"
	"time"
)

// racyAge is how old a file's modification time must be for an equal stamp to prove equal content: two writes within one
// tick of the file system's clock leave the same one. The coarsest ticks are the 2 s of FAT. Git calls such entries
// racy: https://git-scm.com/docs/racy-git
const racyAge = 3 * time.Second

// stamp is what tells without reading that a file is another one or was written to. The zero value is no file's.
type stamp struct {
	info     fs.FileInfo // For os.SameFile.
	size     int64
	modified time.Time
	changed  int64 // Of the metadata too, in nanoseconds; 0 where the system does not tell.
}

func stampOf(info fs.FileInfo) stamp {
	return stamp{info: info, size: info.Size(), modified: info.ModTime(), changed: changeTime(info)}
}

// known tells whether s is a file's.
func (s stamp) known() bool {
	return s.info != nil
}

// same tells whether nothing that the file system keeps differs.
func (s stamp) same(t stamp) bool {
	return s.size == t.size && s.sameBut(t)
}

// sameBut tells whether nothing differs, or only the size.
func (s stamp) sameBut(t stamp) bool {
	return s.known() && t.known() && s.modified.Equal(t.modified) && s.changed == t.changed && os.SameFile(s.info, t.info)
}

// age is how long ago the file was written to, by clocks that may differ: negative for the future.
func (s stamp) age(now time.Time) time.Duration {
	return now.Sub(s.modified)
}

// racy tells whether a write right after a reading at now could have left the same stamp.
func (s stamp) racy(now time.Time) bool {
	return s.age(now) < racyAge
}

// halfway tells whether s is what a truncation leaves that is not over. On ext4 a file that is being rewritten in place
// shows its new size, 0, about a millisecond before its new times, and longer when the journal is slow.
func (s stamp) halfway(before stamp) bool {
	return s.size != before.size && s.sameBut(before)
}
