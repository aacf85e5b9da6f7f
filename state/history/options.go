package history

import "time"

// Options are what may be set of a history. The zero value is fine.
type Options struct {
	// MaxBytes bounds the file. 0 or less: 64 MiB. Below 4 MiB: 4 MiB. Above 1 GiB: 1 GiB. A busy flag takes about 85
	// bytes a minute, so that 64 MiB hold two days of 250 busy flags; with more the oldest minutes go first, then the
	// oldest five minutes. A file that is larger already, of an earlier setting, does not shrink, but what is in it
	// does, and it does not grow.
	MaxBytes int64
	// MaxFlags bounds the flags of a row: the busiest are kept, by requests. 0 or less: 500. Above 5000: 5000.
	MaxFlags int

	patience time.Duration // How long a call waits for the disk, Close three times as long. 0: 1 s.
	faults   *faults       // Of tests.
}

// faults are what only tests change.
type faults struct {
	disk   func(op string) error // Called before "open", "write" and "read"; may block.
	noSync bool
}

const (
	defaultMaxBytes = 64 << 20
	leastMaxBytes   = 4 << 20
	mostMaxBytes    = 1 << 30 // Which any machine can map.
	defaultMaxFlags = 500
	mostMaxFlags    = 5000
)

// withDefaults returns o with everything set.
func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	o.MaxBytes = min(max(o.MaxBytes, leastMaxBytes), mostMaxBytes)
	if o.MaxFlags <= 0 {
		o.MaxFlags = defaultMaxFlags
	}
	o.MaxFlags = min(o.MaxFlags, mostMaxFlags)
	if o.patience <= 0 {
		o.patience = time.Second
	}
	return o
}

// fault is what a test has the disk do.
func (o Options) fault(op string) error {
	if o.faults == nil || o.faults.disk == nil {
		return nil
	}
	return o.faults.disk(op)
}

func (o Options) noSync() bool {
	return o.faults != nil && o.faults.noSync
}
