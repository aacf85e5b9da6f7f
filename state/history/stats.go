package history

// Stats are figures about a history itself.
type Stats struct {
	// Bytes is the size of the file; 0 while none is open.
	Bytes int64 `json:"bytes"`
	// Waiting is the number of minutes that are not on disk yet.
	Waiting int `json:"waiting"`
	// Lost is the number of minutes that gave way to later ones before the disk worked.
	Lost uint64 `json:"lost"`
	// Dropped is the number of rows of flags that were not kept: beyond MaxFlags, or with too long a name.
	Dropped uint64 `json:"dropped"`
	// Damaged is the number of packed rows, each a part of a minute, five minutes or hour, whose checksum did not hold
	// when the file was opened. They are left out.
	Damaged int `json:"damaged"`
	// SetAside are the names that damaged files were given.
	SetAside []string `json:"set_aside,omitempty"`
}

// Stats returns the figures of now.
func (h *History) Stats() Stats {
	h.mu.Lock()
	s := h.stats
	s.SetAside = append([]string(nil), s.SetAside...)
	h.mu.Unlock()
	s.Waiting, s.Lost = h.memory.waiting()
	if h.path == "" {
		s.Waiting, s.Lost = 0, 0
	}
	if f := h.file.Load(); f != nil {
		s.Bytes = f.size.Load()
	}
	return s
}
