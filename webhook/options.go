package webhook

import (
	"net"
	"net/http"
	"time"
)

// Options are what may be set of a [Sender]. The zero value is fine.
type Options struct {
	// MaxQueued is how many events wait at most, counted once for each target that they go to; MaxBytes how many bytes
	// they have together. The oldest go for new ones. 0: 1,000 and 8 MiB.
	MaxQueued int
	MaxBytes  int64
	// MaxAge is how long an event is tried, from when it was sent. 0: 24 h.
	MaxAge time.Duration
	// CloseTimeout is how long Close waits for requests that are under way, and then for the disk. 0: 5 s.
	CloseTimeout time.Duration
	// Told is called with what became of events, from several goroutines and under no lock. What it waits for waits:
	// deliveries, and Close, which it must not call. nil: nobody is told.
	Told func(Report)
	// Transport carries the requests. nil: one with the roots of the system and the proxies of the environment. One that
	// has CloseIdleConnections has it called by Close.
	Transport http.RoundTripper
}

// Report tells what became of an event, or of several. It holds no secret of a target.
type Report struct {
	Target     string // Its name; empty in a report on the queue file.
	Type, Flag string // Of the event; empty when there are several.
	Attempt    int    // From 1 on, in this process; 0 in reports on other things than an attempt.
	// Err is why it was not delivered, nil when it was.
	Err error
	// Final is true when it will not be tried again.
	Final bool
	// Dropped is how many events were given up without an attempt each: for want of room, told once a minute at most,
	// or because the Sender was closed. 0 in all other reports.
	Dropped int
}

const (
	retryMin      = time.Second // Between two attempts that fail, doubling to
	retryMax      = 5 * time.Minute
	retryAfterMax = time.Hour   // What a peer may ask for at most.
	patience      = 10          // Answered attempts until other events go first.
	sweep         = time.Minute // Between two looks for expired events, and two reports of dropped ones.
	diskMin       = time.Second // Between two attempts at the file, doubling to
	diskMax       = 30 * time.Second
	openTimeout   = 2 * time.Second // For the first one, in Open.
)

func (o Options) withDefaults() Options {
	if o.MaxQueued <= 0 {
		o.MaxQueued = 1000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8 << 20
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 24 * time.Hour
	}
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = 5 * time.Second
	}
	if o.Told == nil {
		o.Told = func(Report) {}
	}
	if o.Transport == nil {
		dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
		o.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    2,
			MaxIdleConns:           20,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		}
	}
	return o
}

// maxFile is the size that the queue file never has: a change is written beside what it replaces, and pages of several
// sizes leave gaps.
func (o Options) maxFile() int64 {
	return 16<<20 + 6*o.MaxBytes
}
