package sources

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// maxRedirects is how many redirects of one fetch are followed.
	maxRedirects = 5
	// maxHeader is how many bytes the header of an answer may have.
	maxHeader = 64 << 10
	// idleTime is how long a connection is kept that is not used. Most servers close it earlier.
	idleTime = 90 * time.Second
)

// answer is what a fetch brought.
type answer struct {
	version          // Without its document.
	body      []byte // Of a 200.
	unchanged bool   // A 304.
}

// fetch asks once, following redirects. known is the version to name, if any.
func (h *HTTP) fetch(ctx context.Context, known version) (answer, *fault) {
	if f := h.check(); f != nil {
		return answer{}, f
	}
	first, err := parseAddress(h.URL)
	if err != nil {
		return answer{}, newFault(err.Error())
	}
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = DefaultHTTPTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	e := exchange{ctx: ctx, cancel: cancel, timeout: timeout, hidden: secretsOf(first, h.Header), maxSize: h.MaxSize}
	if e.maxSize <= 0 {
		e.maxSize = DefaultMaxSize
	}
	// Not http.Client: it would send the header to every host that it is redirected to, and its errors hold whole
	// addresses.
	transport := h.roundTripper()
	for target, hops := first, 0; hops <= maxRedirects; hops++ {
		r := h.request(ctx, target, first)
		address := r.URL.String()
		a, next, f := e.do(transport, r, known.condition(address, r.Header))
		switch {
		case f != nil && sameOrigin(target, first):
			return answer{}, f
		case f != nil:
			return answer{}, f.at(originOf(target))
		case next == nil:
			a.version.url = address
			return a, nil
		}
		target = next
		e.hidden = e.hidden.withRedirect(next)
	}
	return answer{}, newFault(fmt.Sprintf("redirected more than %d times", maxRedirects))
}

// request is the question to target; what is for the first address is added where target has the same origin.
func (h *HTTP) request(ctx context.Context, target, first *url.URL) *http.Request {
	plain := *target
	plain.User = nil // Of a redirect too: nobody asked to know its secrets.
	r := (&http.Request{Method: http.MethodGet, URL: &plain, Host: plain.Host, Header: http.Header{
		"Accept":     {"application/json, application/yaml;q=0.9, */*;q=0.5"},
		"User-Agent": {"caddy-feature-flags"},
	}}).WithContext(ctx)
	if !sameOrigin(target, first) {
		return r
	}
	if u := first.User; u != nil {
		password, _ := u.Password()
		r.SetBasicAuth(u.Username(), password)
	}
	for name, values := range h.Header {
		name = http.CanonicalHeaderKey(name)
		if name == "Host" {
			if len(values) > 0 {
				r.Host = values[0]
			}
			continue
		}
		r.Header[name] = values
	}
	return r
}

// roundTripper is what sends requests and keeps one connection between them.
func (h *HTTP) roundTripper() http.RoundTripper {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.transport == nil {
		h.transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           1,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        idleTime,
			MaxResponseHeaderBytes: maxHeader,
			OnProxyConnectResponse: checkProxy,
			// Else a connection whose other end is gone would be asked by for as long as TCP is patient.
			HTTP2: &http.HTTP2Config{SendPingTimeout: idleTime / 3, PingTimeout: DefaultHTTPTimeout},
		}
	}
	return h.transport
}

// checkProxy says of whom the refusal of a tunnel is.
func checkProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}

// redirect returns where an answer sends to, or nil for one that does not.
func redirect(resp *http.Response, from *url.URL) (*url.URL, *fault) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, nil
	}
	// So that the connection can be used again.
	io.CopyN(io.Discard, resp.Body, 2<<10)
	to, err := from.Parse(location)
	switch {
	case err != nil:
		return nil, newFault("redirected to an address that cannot be parsed")
	case to.Scheme != "http" && to.Scheme != "https":
		return nil, newFault("redirected to an address that is neither http nor https")
	case to.Hostname() == "":
		return nil, newFault("redirected to an address without a host")
	case from.Scheme == "https" && to.Scheme == "http":
		return nil, newFault(fmt.Sprintf("redirected to %q, from https to http, want https", originOf(to)))
	}
	to.Fragment, to.RawFragment = "", ""
	return to, nil
}
