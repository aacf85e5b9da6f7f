package history

import "sync"

// memory holds the newest minutes, those that are not on disk among them. Safe for concurrent use.
type memory struct {
	session [8]byte // Tells the numbers of this history from those of others.

	mu      sync.Mutex
	entries []*entry // In the order in which they came, at most MemoryMinutes.
	number  uint64   // Of the last one.
	applied uint64   // The last one that is in the file.
	lost    uint64
}

// entry is one minute as it was added.
type entry struct {
	number uint64
	at     uint32
	parts  [][]byte
	tried  chan error // Gets the end of the first attempt to write it.
}

// rows are what was added.
func (e *entry) rows() (rows []Row) {
	for i, p := range e.parts {
		rows, _ = unpack(keyOf(e.at, i), p, rows)
	}
	return rows
}

func (m *memory) add(at uint32, parts [][]byte) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	e := &entry{number: m.number, at: at, parts: parts, tried: make(chan error, 1)}
	kept := m.entries
	if len(kept) >= MemoryMinutes {
		if kept[0].number > m.applied {
			m.lost++
		}
		kept = kept[1:]
	}
	// A new slice: others read the old one.
	m.entries = append(append(make([]*entry, 0, len(kept)+1), kept...), e)
	return e
}

// all returns the minutes in memory, which must not be changed.
func (m *memory) all() []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries
}

// after returns the first minutes in memory that came after a number, at most most.
func (m *memory) after(number uint64, most int) []*entry {
	all := m.all()
	for i, e := range all {
		if e.number > number {
			return all[i:min(len(all), i+most)]
		}
	}
	return nil
}

// settle notes that everything up to a number is in the file.
func (m *memory) settle(applied uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = applied
}

// settled is the number of the last minute that is in the file.
func (m *memory) settled() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

// waiting returns how many minutes are not in the file, and how many never will be.
func (m *memory) waiting() (n int, lost uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if e.number > m.applied {
			n++
		}
	}
	return n, m.lost
}
