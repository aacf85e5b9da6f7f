package monitors

import "time"

// Class is what one exposed request came to, seen from the server's side.
type Class uint8

// The classes. OK to Refused are fine by the server; the errors are Failed,
// FailedInside and Aborted; ClientGone is neither.
const (
	OK           Class = iota // 2xx, and 101 for a protocol switch
	Redirected                // 3xx
	Refused                   // 4xx: the client's own mistake
	Failed                    // 5xx, or a transport failure that became one
	FailedInside              // a failure under a good status: gRPC's trailers, a matched response
	Aborted                   // broken off in the middle of the body
	ClientGone                // the client left before the server was done
	classes
)

var classNames = [classes]struct{ outcome, code string }{
	OK: {"ok", "2xx"}, Redirected: {"ok", "3xx"}, Refused: {"ok", "4xx"},
	Failed: {"error", "5xx"}, FailedInside: {"error", "2xx"},
	Aborted: {"aborted", "2xx"}, ClientGone: {"client_gone", "none"},
}

// String returns ok, error, aborted or client_gone.
func (c Class) String() string { return classNames[c].outcome }

// Code returns the class of the status code as metrics name it: 2xx, 3xx, 4xx,
// 5xx, or none where the client never got one.
func (c Class) Code() string { return classNames[c].code }

// IsError tells whether the class counts against the server.
func (c Class) IsError() bool { return c == Failed || c == FailedInside || c == Aborted }

// Classes returns all classes.
func Classes() []Class {
	out := make([]Class, classes)
	for i := range out {
		out[i] = Class(i)
	}
	return out
}

// Outcome is what one request came to, for all the flags it was exposed to.
type Outcome struct {
	Class     Class
	Status    int           // 0: none was sent
	FirstByte time.Duration // from arrival; 0 and Answered false: there was none
	Answered  bool          // the answer began
	Duration  time.Duration // from arrival to the end
	RequestID string        // of a failed request; never an identity
	Error     string        // of a failed request: what happened, in a few words
}

// wait is the time to the first byte, or to the end when there was none.
func (o *Outcome) wait() time.Duration {
	if o.Answered {
		return o.FirstByte
	}
	return o.Duration
}

// patience is how long a client must have waited in vain for its leaving to
// count against the server.
const patience = 10 * time.Second

// isError tells whether the outcome counts as an error of the server.
func (o *Outcome) isError() bool {
	return o.Class.IsError() || o.Class == ClientGone && !o.Answered && o.Duration >= patience
}
