package monitors

import "time"

// Seen is a request that is over, or for which nobody waits any longer, as a flag
// saw it.
type Seen struct {
	Canary bool
	Ended  bool
	Class  Class          // where it has ended
	User   uint64         // a hash; 0: nobody known
	Wait   time.Duration  // to the first byte; negative: there was none
	Failed *FailedRequest // of an error: for people

	still *followed // where it has not ended: to look at it again
}

// Absorb judges requests that somebody else has followed, in the order of their
// arrival until over. They were decided in an epoch; those of another one do not
// count. It is for requests that many flags were told of at once: these need not
// be noted for each flag. The verdict comes with the next [Guard.Tick].
func (g *Guard) Absorb(epoch int64, over time.Time, requests []Seen) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.epoch.Load() || g.tripped != "" || len(requests) == 0 {
		return
	}
	g.close(over, blockNote{share: g.config.Share}, requests)
	g.trips()
}

// Absorb has the flag's guard judge requests that somebody else has followed; see
// [Guard.Absorb]. The guard is made if there is none.
func (f *Flag) Absorb(now time.Time, epoch int64, over time.Time, requests []Seen) {
	if f.Disarmed() {
		return
	}
	g := f.Guard()
	if g == nil {
		if g = f.guarding.begin(now); g == nil {
			return
		}
	}
	g.Absorb(epoch, over, requests)
}
