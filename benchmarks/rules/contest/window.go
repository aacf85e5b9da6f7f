package contest

import "time"

// window counts requests and failures over a sliding time, in buckets.
type window struct {
	buckets []tally
	sum     tally
	long    time.Duration // a bucket
	at      int64         // the bucket that is filled, counted from the beginning
}

// tally counts requests, and the bad ones among them.
type tally struct{ n, bad float64 }

func (t *tally) add(bad bool) {
	t.n++
	if bad {
		t.bad++
	}
}

// share of bad requests; 0 if there are none at all.
func (t *tally) share() float64 {
	if t.n == 0 {
		return 0
	}
	return t.bad / t.n
}

// newWindow makes a window of buckets of a second each.
func newWindow(length time.Duration) window {
	return window{buckets: make([]tally, length/time.Second), long: time.Second}
}

// slide forgets what is too old by now.
func (w *window) slide(now time.Duration) {
	for to := int64(now / w.long); w.at < to; {
		w.at++
		old := &w.buckets[w.at%int64(len(w.buckets))]
		w.sum.n -= old.n
		w.sum.bad -= old.bad
		*old = tally{}
	}
}

func (w *window) add(now time.Duration, bad bool) {
	w.slide(now)
	w.buckets[w.at%int64(len(w.buckets))].add(bad)
	w.sum.add(bad)
}
