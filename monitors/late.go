package monitors

import "time"

// late follows requests whose answer had begun, and not ended, when their block
// was judged: one that breaks off after some seconds is as bad as one that breaks
// off at once. The requests of a block that were well so far are judged once more,
// by a test of its own, where any of them goes on: which is known before.
type late struct {
	phases [len(latePhases)][]lateBlock
	going  int
}

// lateBlock are the requests of about lateLong that were well so far.
type lateBlock struct {
	over  time.Time // of the first of its blocks
	well  Stratum
	going []lateRequest // of them
}

type lateRequest struct {
	*followed
	user uint64
	of   cohort
}

// latePhases are the ages at which requests are judged again; they are not waited
// for any longer than the last.
var latePhases = [...]time.Duration{10 * time.Second, time.Minute}

const lateLong = 200 * time.Millisecond

// mostLate bounds how many requests are followed so; more are taken for well.
const mostLate = 2000

// add takes requests in that were well until they were judged last.
func (l *late) add(phase int, b lateBlock) {
	if len(b.going) == 0 {
		return
	}
	b.going = b.going[:min(len(b.going), max(mostLate-l.going, 0))]
	l.going += len(b.going)
	blocks := &l.phases[phase]
	if n := len(*blocks); n > 0 && b.over.Sub((*blocks)[n-1].over) < lateLong {
		last := &(*blocks)[n-1]
		last.well.plus(b.well)
		last.going = append(last.going, b.going...)
		return
	}
	*blocks = append(*blocks, b)
}

// due returns the next block of a phase, when all its requests have ended or it is
// old enough.
func (l *late) due(phase int, now time.Time) (b lateBlock, ok bool) {
	blocks := &l.phases[phase]
	if len(*blocks) == 0 {
		return b, false
	}
	b = (*blocks)[0]
	if now.Sub(b.over) < lateLong {
		return b, false // more may come
	}
	if now.Sub(b.over) < latePhases[phase] {
		for _, r := range b.going {
			if r.state.Load() < recordEnded {
				return b, false
			}
		}
	}
	(*blocks)[0] = lateBlock{}
	*blocks = (*blocks)[1:]
	l.going -= len(b.going)
	return b, true
}

// tickLate judges what has become of requests since their blocks were judged.
func (g *Guard) tickLate(now time.Time) {
	for phase := range latePhases {
		for {
			b, ok := g.late.due(phase, now)
			if !ok {
				break
			}
			g.closeLate(now, phase, b)
		}
	}
}

func (g *Guard) closeLate(now time.Time, phase int, b lateBlock) {
	counts, next := b.well, lateBlock{over: b.over}
	for _, r := range b.going {
		n, x := counts.of(r.of)
		s := r.seen()
		switch {
		case r.user != 0 && g.erred.has(r.user), s.Ended && s.Class == ClientGone:
			*n--
		case s.Ended && s.Class.IsError():
			*x++
			g.failed(r.of, r.user, s.Failed)
		case !s.Ended:
			next.going = append(next.going, r)
		}
	}
	if phase+1 < len(latePhases) {
		next.well = Stratum{N1: counts.N1 - counts.X1, N0: counts.N0 - counts.X0}
		g.late.add(phase+1, next)
	}
	g.sum.late.plus(counts)
	if g.dispersion != nil {
		g.dispersion.add(now, counts)
	}
	if g.open.late.plus(counts); g.open.late.both() {
		g.judge.brokeOff(g.open.late)
		g.recovery.brokeOff(g.open.late)
		g.open.late = Stratum{}
	}
	g.evidence = g.judge.evidence()
}
