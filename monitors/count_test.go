package monitors

import (
	"math"
	"sync"
	"testing"
	"time"
)

func TestCellCounts(t *testing.T) {
	c := new(Cell)
	for class := range classes {
		for n := range int(class) + 1 {
			c.Add(class, time.Duration(n)*time.Second)
		}
	}
	s := c.Snapshot()
	waited := time.Duration(0)
	for class := range classes {
		if s.Outcomes[class] != uint64(class)+1 {
			t.Errorf("%s: %d, want %d", class, s.Outcomes[class], class+1)
		}
		for n := range int(class) + 1 {
			waited += time.Duration(n) * time.Second
		}
	}
	if s.Waited != waited || s.Total() != 28 {
		t.Errorf("waited %s over %d, want %s over 28", s.Waited, s.Total(), waited)
	}
	for _, odd := range []time.Duration{-time.Second, math.MaxInt64} {
		c.Add(OK, odd)
	}
	if n := c.Snapshot().Outcomes[OK]; n != 3 {
		t.Errorf("%d, want odd times counted as well", n)
	}
}

func TestLatencyBuckets(t *testing.T) {
	for i, bound := range bounds {
		if got := latencyBucket(bound); got != i {
			t.Errorf("%s is in bucket %d, want %d: bounds are upper ends", bound, got, i)
		}
		if got := latencyBucket(bound + 1); got != i+1 {
			t.Errorf("just above %s is in bucket %d, want %d", bound, got, i+1)
		}
	}
	if latencyBucket(0) != 0 || latencyBucket(-1) != 0 || latencyBucket(time.Hour) != len(Bounds) {
		t.Error("the ends")
	}
}

// Folding changes no figure, neither at the limits nor while others add.
func TestCellFolds(t *testing.T) {
	c := new(Cell)
	const workers, each = 4, 600_000
	var all sync.WaitGroup
	stop := make(chan struct{})
	folded := make(chan struct{})
	go func() {
		defer close(folded)
		for {
			select {
			case <-stop:
				return
			default:
				c.fold()
				if s := c.Snapshot(); s.Total() > workers*each {
					t.Errorf("%d counted, more than there are", s.Total())
					return
				}
			}
		}
	}()
	for range workers {
		all.Go(func() {
			for range each {
				c.Add(Failed, 3*time.Millisecond)
			}
		})
	}
	all.Wait()
	close(stop)
	<-folded
	c.fold()
	s := c.Snapshot()
	if s.Outcomes[Failed] != workers*each || s.Total() != workers*each || s.Waited != workers*each*3*time.Millisecond {
		t.Errorf("%d requests, %s waited", s.Total(), s.Waited)
	}
}

// counts puts one request into a bucket for each duration.
func counts(waits ...time.Duration) (c Counts) {
	for _, w := range waits {
		c.Latency[latencyBucket(w)]++
		c.Outcomes[OK]++
	}
	return c
}

func TestQuantile(t *testing.T) {
	ms := time.Millisecond
	tests := []struct {
		name  string
		waits []time.Duration
		q     float64
		want  float64
	}{
		{"none", nil, 0.5, 0},
		{"one, in the middle of its bucket", []time.Duration{7 * ms}, 0.5, 0.0075},
		{"one, the maximum", []time.Duration{7 * ms}, 1, 0.01},
		{"the first bucket begins at nought", []time.Duration{ms / 2}, 0.5, 0.0005},
		{"half and half", []time.Duration{7 * ms, 7 * ms, 70 * ms, 70 * ms}, 0.5, 0.01},
		{"three quarters", []time.Duration{7 * ms, 7 * ms, 70 * ms, 70 * ms}, 0.75, 0.075},
		{"the open bucket", []time.Duration{time.Minute, time.Minute}, 0.9, 30},
		{"over empty buckets", []time.Duration{ms, 20 * time.Second}, 0.99, 10 + 20*0.98},
	}
	for _, test := range tests {
		c := counts(test.waits...)
		if got := c.Quantile(test.q); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: %g, want %g", test.name, got, test.want)
		}
	}
}

func TestFigures(t *testing.T) {
	var c Counts
	c.Outcomes = [classes]uint64{OK: 4, Redirected: 1, Refused: 1, Failed: 1, FailedInside: 1, Aborted: 2, ClientGone: 10}
	f := c.Figures()
	if f.Requests != 20 || f.Errors != 4 || f.ClientGone != 10 || f.ErrorRate != 0.4 {
		t.Errorf("%+v, want 4 errors of the 10 that stayed", f)
	}
	c.Outcomes = [classes]uint64{ClientGone: 3}
	if f := c.Figures(); f.ErrorRate != 0 {
		t.Errorf("%+v, want no rate of nothing", f)
	}
	sum := counts(time.Second)
	sum.Add(counts(time.Second, time.Minute))
	if sum.Total() != 3 || sum.Latency[latencyBucket(time.Second)] != 2 {
		t.Errorf("%+v", sum)
	}
}
