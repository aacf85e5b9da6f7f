package token

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	askEvery     = 10 * time.Second // least time between two refreshes that tokens of unknown keys caused
	firstBackoff = time.Second
	maxBackoff   = time.Minute
)

// run refreshes until ctx is done: every r.every while that goes well, with a growing backoff while it does not, and
// when asked, at most once in askEvery and never during a backoff. It closes first after the first attempt.
func (r *keyring) run(ctx context.Context, first chan<- struct{}) {
	var asked time.Time
	for failures := 0; ; {
		if r.refresh(ctx) == nil {
			failures = 0
		} else {
			failures++
		}
		if first != nil {
			close(first)
			first = nil
		}

		timer := time.NewTimer(delay(r.every, failures, rand.Float64()))
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
				waiting = false
			case <-r.asks:
				if failures == 0 && (asked.IsZero() || time.Since(asked) >= askEvery) {
					asked = time.Now()
					waiting = false
				}
			}
		}
		timer.Stop()
	}
}

// delay is the time to the next attempt. Without a failure it is every, varied by a tenth so that a fleet started
// together does not stay together; after the nth failure in a row it is between half and all of 1, 2, 4, ... seconds,
// up to a minute or every, whichever is less. chance is in [0, 1).
func delay(every time.Duration, failures int, chance float64) time.Duration {
	if failures == 0 {
		return time.Duration(float64(every) * (0.9 + 0.2*chance))
	}
	limit := min(every, maxBackoff)
	wait := limit
	if failures < 10 {
		wait = min(firstBackoff<<(failures-1), limit)
	}
	return time.Duration(float64(wait) * (0.5 + 0.5*chance))
}
