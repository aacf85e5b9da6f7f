package monitors

import (
	"math"
	"math/rand/v2"
	"testing"
)

// visited lets seconds pass and adds up the visits that are over.
type visited struct {
	visits
	second int64
	over   Stratum
}

func (v *visited) until(second int64) {
	for v.second < second {
		v.second++
		v.over.plus(v.tick(v.second))
	}
}

func TestFirstInHalfAnHour(t *testing.T) {
	const user = 0x123456789abcdef1
	m := func(minutes float64) int64 { return int64(60 * minutes) }
	for _, c := range []struct {
		name  string
		comes []int64 // seconds
		first []bool
	}{
		{"at once again", []int64{0, 0, 1, 29, 31, 120}, []bool{true, false, false, false, false, false}},
		{"within half an hour", []int64{0, m(14), m(29)}, []bool{true, false, false}},
		{"on the quarters", []int64{m(15), m(30), m(45)}, []bool{true, false, false}},
		{"after three quarters", []int64{0, m(46)}, []bool{true, true}},
		{"after an hour and a half", []int64{m(14), m(104), m(105)}, []bool{true, true, false}},
		{"again and again", []int64{m(7), m(17), m(27), m(37), m(47), m(57), m(67)}, []bool{true, false, false, false, false, false, false}},
		{"over two quarters' ends", []int64{m(14.9), m(30.1)}, []bool{true, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := new(visited)
			for i, second := range c.comes {
				v.until(second)
				if got := v.note(control, user); got != c.first[i] {
					t.Errorf("request %d, after %d s: first is %v", i, second, got)
				}
			}
		})
	}
}

// A visit is over half a minute after it began, and was left unless a second
// request came within it.
func TestVisitsAreLeft(t *testing.T) {
	for _, c := range []struct {
		name  string
		of    cohort
		again []int64 // seconds after the first request
		want  Stratum
	}{
		{"left at once", canary, nil, Stratum{N1: 1, X1: 1}},
		{"a second request", canary, []int64{0}, Stratum{N1: 1}},
		{"at the last moment", canary, []int64{29}, Stratum{N1: 1}},
		{"too late", canary, []int64{30}, Stratum{N1: 1, X1: 1}},
		{"many", canary, []int64{1, 2, 3, 40, 70}, Stratum{N1: 1}},
		{"the control's", control, nil, Stratum{N0: 1, X0: 1}},
		{"the control's, that stay", control, []int64{7}, Stratum{N0: 1}},
	} {
		const begin = 100
		v := new(visited)
		v.until(begin)
		v.note(c.of, 7)
		for _, after := range c.again {
			v.until(begin + after)
			v.note(c.of, 7)
		}
		v.until(max(v.second, begin+29))
		if v.second == begin+29 && v.over != (Stratum{}) {
			t.Errorf("%s: over after 29 s: %+v", c.name, v.over)
		}
		v.until(begin + 200)
		if v.over != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, v.over, c.want)
		}
	}
	// Of users who come by the hundred, few are waited for, and each visit once.
	v := new(visited)
	rng := rand.New(rand.NewPCG(4, 4))
	for second := range int64(600) {
		v.until(second)
		for range 10 {
			user := rng.Uint64()
			of := cohortOf(rng.IntN(4) == 0)
			if v.note(of, user); rng.IntN(10) < 3 && of == control || rng.IntN(10) < 6 && of == canary {
				v.note(of, user)
			}
		}
	}
	v.until(700)
	n, x0, x1 := float64(v.over.N0+v.over.N1), float64(v.over.X0)/float64(v.over.N0), float64(v.over.X1)/float64(v.over.N1)
	if n < 10*pendingVisits || n > 21*pendingVisits || math.Abs(float64(v.over.N1)/n-0.25) > 0.05 || math.Abs(x0-0.7) > 0.06 || math.Abs(x1-0.4) > 0.1 {
		t.Errorf("%+v: %.2f of the control's and %.2f of the canary's visits were left, want 0.7 and 0.4", v.over, x0, x1)
	}
}

// bytes that the sets of users take.
func (v *visits) bytes() (n int) {
	for i := range v.recent {
		if c := v.recent[i]; c != nil {
			for k := range c.levels {
				if b := c.levels[k]; b != nil {
					n += 8 * len(b.words)
				}
			}
		}
	}
	return n
}

// Many users take no more memory: a sample of them is remembered, the same of
// both cohorts.
func TestVisitsOfManyUsers(t *testing.T) {
	const users, rounds = 100_000, 3
	v := new(visited)
	user := func(i int) uint64 { return mix(uint64(i) + 1) }
	var firsts [2]float64
	for i := range users * rounds {
		v.until(int64(i / 100)) // fifty minutes
		of := cohortOf(i%10 == 0)
		if v.note(of, user(i%users)) {
			firsts[of]++
		}
		if i%2 == 0 {
			v.note(of, user(i%users))
		}
		if n := v.bytes(); i%1000 == 0 && n > 40_000 {
			t.Fatalf("%d bytes after %d requests", n, i)
		}
	}
	n := firsts[canary] + firsts[control]
	if share := firsts[canary] / n; n < 1000 || n > users || math.Abs(share-0.1) > 5*math.Sqrt(0.1*0.9/n) {
		t.Errorf("%v firsts, %.4f of them the canary's, want a tenth", n, share)
	}
	if v.recent[0].zeros == 0 {
		t.Error("all of so many users are remembered")
	}
	if s := v.over; s.N1 < 100 || s.X1 > s.N1/50 || math.Abs(float64(s.X0)/float64(s.N0)-5.0/9) > 0.05 {
		t.Errorf("%+v: every visit of the canary and four in nine of the control's had a second request", s)
	}
	// When few come, all of them are known again.
	quiet := v.second
	for range 4 * 6 {
		quiet += visitQuarter
		v.until(quiet)
	}
	came := 0
	for i := range 100 {
		if v.note(control, user(i)) {
			came++
		}
	}
	if came < 95 {
		t.Errorf("%d of 100 users are seen after a quiet time", came)
	}
}
