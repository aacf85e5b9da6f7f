package sources

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"time"
)

// maxForeign is how many bytes of a text are told that is not of this package.
const maxForeign = 200

// fault is why a fetch came to no document.
type fault struct {
	text  string        // What is told, behind the name of the source.
	kind  string        // The same for two faults that are one to a reader, whatever numbers of theirs differ.
	after time.Duration // How long the server asks to be left alone; 0 when it does not.
	cause error         // The error of the caller's context; nothing else counts then.
}

// newFault is one that differs from another one exactly when their texts do.
func newFault(text string) *fault {
	return &fault{text: text, kind: text}
}

// error returns what the caller is told; of no fault nil. It wraps the error of a context only: others hold addresses.
func (f *fault) error(name string) error {
	switch {
	case f == nil:
		return nil
	case f.cause != nil:
		return fmt.Errorf("http %q: %w", name, f.cause)
	default:
		return fmt.Errorf("http %q: %s", name, f.text)
	}
}

// at puts before what is told that another server said it.
func (f *fault) at(origin string) *fault {
	where := fmt.Sprintf("redirected to %q: ", origin)
	f.text, f.kind = where+f.text, where+f.kind
	return f
}

var (
	// localEnd is the address of this side in a text of net's, which is another one each time.
	localEnd = regexp.MustCompile(`[^ ]+->`)
	digits   = regexp.MustCompile(`[0-9]+`)
)

// foreign is the fault of an error that is not of this package.
func foreign(err error, hidden secrets) *fault {
	text := hidden.hide(explain(err), false, maxForeign)
	return &fault{text: text, kind: digits.ReplaceAllString(text, "0")}
}

// explain returns what an error of net and net/http says, without the addresses, of which there may be several in turn.
func explain(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	var call *os.SyscallError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &op):
		what := explain(op.Err)
		switch op.Op {
		case "proxyconnect":
			return "connecting to the proxy: " + what
		case "dial":
			return "connecting: " + what
		case "read":
			return "reading: " + what
		case "write":
			return "writing: " + what
		default: // Such as remote error, of a TLS alert.
			return op.Op + ": " + what
		}
	case errors.As(err, &dns) && dns.IsNotFound:
		return "looking the host up: no such host"
	case errors.As(err, &dns) && dns.IsTimeout:
		return "looking the host up: timed out"
	case errors.As(err, &dns):
		return "looking the host up: " + localEnd.ReplaceAllString(dns.Err, "")
	case errors.As(err, &call):
		return call.Err.Error()
	case errors.As(err, &record):
		return "answered without TLS"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed the connection before the end of an answer"
	default:
		text := strings.TrimPrefix(err.Error(), "net/http: HTTP/1.x transport connection broken: ")
		return localEnd.ReplaceAllString(strings.TrimPrefix(text, "net/http: "), "")
	}
}
