package sources

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxRetryAfter is the longest time for which a server is left alone because it asks for it.
const maxRetryAfter = 10 * time.Minute

// pace says when to ask again. Not safe for concurrent use.
type pace struct {
	poll  time.Duration
	retry backoff.ExponentialBackOff
}

func newPace(poll time.Duration) *pace {
	switch {
	case poll <= 0:
		poll = DefaultHTTPPoll
	case poll < MinHTTPPoll:
		poll = MinHTTPPoll
	}
	p := &pace{poll: poll, retry: backoff.ExponentialBackOff{
		InitialInterval:     min(time.Second, poll),
		RandomizationFactor: 0.5,
		Multiplier:          2,
		MaxInterval:         time.Minute,
	}}
	p.retry.Reset()
	return p
}

// next is how long to wait after a fetch that came to f, or went well when that is nil.
func (p *pace) next(f *fault) time.Duration {
	if f == nil {
		p.retry.Reset()
		return time.Duration(float64(p.poll) * (0.9 + 0.2*rand.Float64()))
	}
	wait := p.retry.NextBackOff()
	if f.after > 0 {
		// All who were turned away are asked to come back at the same time. Never earlier than that.
		wait = max(wait, min(f.after+rand.N(f.after/10+1), maxRetryAfter))
	}
	return wait
}

// retryAfter returns how long the header of an answer that came at now asks to wait, at most maxRetryAfter; 0 when it
// does not ask or cannot be understood. A date is taken by the server's own clock where that is told.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if text != "" && strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil { // More digits than there are.
			seconds = math.MaxInt64
		}
		return time.Duration(min(seconds, int64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if sent, err := http.ParseTime(header.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
