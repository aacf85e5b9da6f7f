package monitors

import (
	"runtime"
	"testing"
	"time"
)

// A guard weighs little, however many users it has seen: a proxy may have a
// thousand.
func TestGuardWeighsLittle(t *testing.T) {
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	const n = 50
	before := heap()
	guards := make([]*Guard, n)
	for i := range guards {
		guards[i] = NewGuard(epoch, defaultGuard())
	}
	fresh := (heap() - before) / n
	for user := range uint64(20_000) {
		for _, g := range guards {
			q := g.Arrive(0, user%10 == 0, mix(user))
			wait := 20*time.Millisecond + time.Duration(mix(user)%200)*time.Millisecond
			q.FirstByte(wait)
			o := *good200
			if o.FirstByte = wait; user%97 == 0 {
				o = *bad500
			}
			q.End(epoch, &o)
			if user%10 == 9 {
				g.Tick(at(time.Duration(user/10) * 100 * time.Millisecond))
			}
		}
	}
	used := (heap() - before) / n
	t.Logf("%.1f kB when made, %.1f kB after 20,000 users", fresh/1000, used/1000)
	if fresh > 9_000 || used > 21_000 {
		t.Error("want at most 9 kB and 21 kB")
	}
	runtime.KeepAlive(guards)
}
