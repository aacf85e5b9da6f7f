package state

import "time"

// Options are what may be set of a store. The zero value is fine.
type Options struct {
	// Instance names this instance in the records it makes; empty: they carry no name.
	Instance string
	// RetryMin and RetryMax bound the wait between two attempts at a directory that could not be used; it doubles from
	// one to the other. 0: 1 s and 30 s. For a directory that another process holds it stays RetryMin.
	RetryMin, RetryMax time.Duration
	// CloseTimeout is how long Close waits for the disk. 0: 5 s.
	CloseTimeout time.Duration
	// Retention is how long cleared trips, cleared overrides, cleared progress and feedback are kept. 0: 90 days.
	Retention time.Duration

	limits limits
	files  files
}

// limits are bounds that only tests change.
type limits struct {
	outdated, auditOutdated           int   // Records that may lie outdated in a file.
	outdatedBytes, auditOutdatedBytes int64 // Their bytes.
	auditCount                        int
	auditBytes                        int64
	feedbackCount                     int
	feedbackBytes                     int64
	batch                             int // Bytes written with one fsync.
}

// defaultLimits keep the audit and the feedback below 8 MB each on disk: 5 or 4 in force, 2 outdated and a batch.
var defaultLimits = limits{
	outdated: 1000, outdatedBytes: 1 << 20,
	auditOutdated: 2500, auditOutdatedBytes: 2 << 20,
	auditCount: 10_000, auditBytes: 5 << 20,
	feedbackCount: 50_000, feedbackBytes: 4 << 20,
	batch: 1 << 20,
}

// withDefaults returns o with everything set.
func (o Options) withDefaults() Options {
	if o.RetryMin <= 0 {
		o.RetryMin = time.Second
	}
	if o.RetryMax <= 0 {
		o.RetryMax = 30 * time.Second
	}
	o.RetryMax = max(o.RetryMax, o.RetryMin)
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = 5 * time.Second
	}
	if o.Retention <= 0 {
		o.Retention = 90 * 24 * time.Hour
	}
	if o.limits == (limits{}) {
		o.limits = defaultLimits
	}
	if o.files.open == nil {
		o.files = systemFiles
	}
	o.Instance = cleanText(o.Instance)
	return o
}
