package monitors

import (
	"math/rand/v2"
	"testing"
)

func TestOpine(t *testing.T) {
	got := Opine([]Vote{
		{"on", true, true, "1"}, {"on", true, true, "up"}, {"off", false, true, "4"}, {"off", false, true, "5"}, {"gold", true, false, "3"}, {"gold", true, false, "down"},
	})
	on, off, gold := got.Variants["on"], got.Variants["off"], got.Variants["gold"]
	if got.Total != 6 || got.Worse || len(got.Variants) != 3 || on.Bad != 1 || on.Good != 1 || *on.Mean != 1 || off.Good != 2 || *off.Mean != 4.5 || gold.Bad != 1 || gold.Good != 0 || *gold.Mean != 3 {
		t.Errorf("%+v", got)
	}
	if empty := Opine(nil); empty.Total != 0 || empty.LogE != nil || empty.Worse {
		t.Errorf("%+v", empty)
	}
	if !IsRating("3") || !IsRating("up") || IsRating("6") || IsRating("") || IsRating("Up") {
		t.Error("ratings")
	}
}

// The evidence holds what is clearly worse, soon, and what is not, seldom, however
// few of the votes are of the canary.
func TestOpinionsFigures(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	votes := func(n int, share, canary, control float64) []Vote {
		out := make([]Vote, n)
		for i := range out {
			v := Vote{Variant: "off", Compared: true, Rating: "up"}
			bad := control
			if random.Float64() < share {
				v.Variant, v.Canary, bad = "on", true, canary
			}
			if random.Float64() < bad {
				v.Rating = "down"
			}
			out[i] = v
		}
		return out
	}
	held := func(share, canary, control float64, n int) (held int) {
		for range 300 {
			if Opine(votes(n, share, canary, control)).Worse {
				held++
			}
		}
		return held
	}
	for _, c := range []struct {
		share, canary, control float64
		n, least, most         int
	}{
		{0.1, 0.2, 0.2, 2000, 0, 6}, // no worse: 1 % at most
		{0.5, 0.2, 0.2, 2000, 0, 6},
		{0.5, 0.28, 0.2, 2000, 0, 6}, // at the boundary of what is tolerated
		{0.1, 0.1, 0.3, 2000, 0, 0},  // better
		{0.5, 0.7, 0.2, 400, 290, 300},
		{0.1, 0.9, 0.2, 400, 290, 300},
	} {
		if got := held(c.share, c.canary, c.control, c.n); got < c.least || got > c.most {
			t.Errorf("%+v: held %d of 300", c, got)
		} else {
			t.Logf("%+v: held %d of 300", c, got)
		}
	}
}

// Who has a flag for another reason than the split says nothing about it.
func TestOpinionsOfOthers(t *testing.T) {
	var votes []Vote
	for range 500 {
		votes = append(votes, Vote{"on", true, false, "1"}, Vote{"off", false, false, "5"})
	}
	if got := Opine(votes); got.Worse || got.LogE != nil {
		t.Errorf("%+v", got)
	}
}
