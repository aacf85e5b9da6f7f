package caddymodule

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// RateLimit bounds how many requests one client address may make. Those of an IPv6
// network (/64) count as one; behind proxies the server's `trusted_proxies` tell
// who the client is.
type RateLimit struct {
	// Requests in each Window; as many may come at once. 0: no limit.
	Requests int `json:"requests,omitempty"`

	// Window is a duration. Default: 1s.
	Window caddy.Duration `json:"window,omitempty"`
}

// limiter keeps to a RateLimit. Safe for concurrent use. A nil limiter lets all
// pass.
type limiter struct {
	every   rate.Limit
	burst   int
	clients *lru.Cache[netip.Addr, *rate.Limiter] // the ones that came lately
}

// mostClients is how many addresses a limiter remembers, in about 2 MB.
const mostClients = 10_000

func newLimiter(l *RateLimit) (*limiter, error) {
	if l == nil || l.Requests == 0 {
		return nil, nil
	}
	window := time.Duration(l.Window)
	if window == 0 {
		window = time.Second
	}
	if l.Requests < 0 || window < 0 {
		return nil, fmt.Errorf("rate_limit: want a number of requests and a window as 100 1s, got %d %v", l.Requests, window)
	}
	clients, err := lru.New[netip.Addr, *rate.Limiter](mostClients)
	if err != nil {
		return nil, err
	}
	return &limiter{rate.Limit(float64(l.Requests) / window.Seconds()), l.Requests, clients}, nil
}

// wait returns how long the client has to wait; 0: the request may go on.
func (l *limiter) wait(client netip.Addr, now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	of, ok := l.clients.Get(client)
	if !ok {
		of = rate.NewLimiter(l.every, l.burst)
		if before, there, _ := l.clients.PeekOrAdd(client, of); there {
			of = before
		}
	}
	r := of.ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}

// retryAfter says how long to wait, in whole seconds.
func retryAfter(h http.Header, wait time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(min(math.Ceil(wait.Seconds()), 1<<31-1))))
}

// clientOf returns the address of a request's client, of IPv6 the network's.
func clientOf(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if text == "" {
		text = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		if port, err := netip.ParseAddrPort(text); err == nil {
			addr = port.Addr()
		}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		network, _ := addr.Prefix(64) // fails for lengths out of range only
		return network.Addr()
	}
	return addr
}
