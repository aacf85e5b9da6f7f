package webhook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	answerBytes = 4 << 10 // Of an answer that are read,
	answerShown = 256     // and that an error shows.
)

// destination is a target, compiled.
type destination struct {
	name      string
	target    Target // With its defaults and name.
	url       *url.URL
	keys      [][]byte
	redaction redaction
}

// newDestination takes a target that is valid.
func newDestination(t Target) *destination {
	t.Name = t.name()
	t = t.withDefaults()
	t.Header = t.Header.Clone() // The caller's own.
	d := &destination{name: t.Name, target: t}
	d.url, _ = parseURL(t.URL)
	d.keys, _ = keys(t.Secret)
	d.redaction = newRedaction(t, d.url)
	return d
}

// outcome is what became of an attempt.
type outcome struct {
	err        error // nil: delivered.
	answered   bool  // By the peer, whatever it said.
	final      bool  // Not to be tried again.
	retryAfter time.Duration
}

// attempt makes one request, within the timeout of the target. It sets nothing of the item.
func (d *destination) attempt(ctx context.Context, transport http.RoundTripper, it *item) outcome {
	ctx, cancel := context.WithTimeout(ctx, d.target.Timeout)
	defer cancel()
	response, err := d.exchange(ctx, transport, it, time.Now())
	if err != nil {
		return outcome{err: d.failure(ctx, err)}
	}
	defer response.Body.Close()
	// Also where the answer does not matter: a connection is used again only when it was read.
	text, readErr := io.ReadAll(io.LimitReader(response.Body, answerBytes))
	out := outcome{answered: true}
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return out
	}
	whole := readErr == nil && len(text) < answerBytes
	out.err = fmt.Errorf("webhook %s: answered %s", d.name, statusText(response.StatusCode))
	if response.StatusCode >= 300 && response.StatusCode <= 399 {
		out.err = fmt.Errorf("%w, and redirects are not followed: want the address that it leads to", out.err)
	} else if shown := d.redaction.text(string(text), whole, answerShown); shown != "" {
		out.err = fmt.Errorf("%w: %q", out.err, shown)
	}
	switch code := response.StatusCode; {
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
	case code >= 400 && code <= 499:
		out.final = true
	}
	if !out.final {
		out.retryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	return out
}

// exchange sends the request. The client is made each time: it holds nothing but the transport.
func (d *destination) exchange(ctx context.Context, transport http.RoundTripper, it *item, now time.Time) (*http.Response, error) {
	body := it.body
	if it.format == PagerDuty {
		body = seal(body, d.target.RoutingKey)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.target.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range d.target.Header {
		for _, v := range values {
			request.Header.Add(name, v)
		}
	}
	if request.Header.Get("User-Agent") == "" {
		request.Header.Set("User-Agent", client)
	}
	request.Header.Set("Content-Type", it.format.mediaType())
	sign(request.Header, d.keys, it.id, now, body)
	c := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.Do(request)
}

// failure is the error of a request that was not answered. The text is taken out of the chain of errors: one of those
// would show the address.
func (d *destination) failure(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("webhook %s: no answer within %v: %w", d.name, d.target.Timeout, context.DeadlineExceeded)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("webhook %s: broken off: %w", d.name, ErrClosed)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("webhook %s: %s", d.name, cmp.Or(d.redaction.text(err.Error(), true, 2*answerShown), "not reached"))
}

// statusText is the code and the text that the RFCs give it: the peer's own could be anything.
func statusText(code int) string {
	if text := http.StatusText(code); text != "" {
		return strconv.Itoa(code) + " " + text
	}
	return strconv.Itoa(code)
}

// retryAfter reads the header of that name: seconds or a date. RFC 9110, 10.2.3. 0: none that can be read.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(retryAfterMax/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return retryAfterMax
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), retryAfterMax)
	}
	return 0
}
