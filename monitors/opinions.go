package monitors

import "math"

// Vote is one person's word about a flag.
type Vote struct {
	Variant  string
	Canary   bool   // the flag was on for them
	Compared bool   // the split decided that: who has it for another reason differs to begin with
	Rating   string // one of 1 to 5, up and down
}

// Opinions sum up what people said about a flag.
type Opinions struct {
	Total    int                `json:"total"`
	Variants map[string]Opinion `json:"variants"`
	// LogE is the natural logarithm of the evidence that people like the canary clearly less than the control: that
	// its share of bad ratings is more than 1.2 times the control's and 5 per cent points. nil: there is none yet.
	LogE *float64 `json:"log_e"`
	// HoldAt is where LogE holds a rollout: ln 100, by chance in at most one of a hundred rollouts whose canary is no
	// worse, however often one looks.
	HoldAt float64 `json:"hold_at"`
	Worse  bool    `json:"worse"`
}

// Opinion is that of one variant.
type Opinion struct {
	Ratings map[string]int `json:"ratings"` // by rating
	Good    int            `json:"good"`    // 4, 5 and up
	Bad     int            `json:"bad"`     // 1, 2 and down
	Mean    *float64       `json:"mean"`    // of those from 1 to 5; nil: there are none
}

// Ratings are all there are, from worst to best.
var Ratings = [...]string{"1", "2", "3", "4", "5", "down", "up"}

// IsRating tells whether a text is one of them.
func IsRating(text string) bool {
	for _, r := range Ratings {
		if r == text {
			return true
		}
	}
	return false
}

func isBad(rating string) bool  { return rating == "1" || rating == "2" || rating == "down" }
func isGood(rating string) bool { return rating == "4" || rating == "5" || rating == "up" }

var holdAt = math.Log(100)

// Opine sums votes up, the oldest first, one of each person. The comparison is that of the guard's error rates, with a
// vote for a request.
func Opine(votes []Vote) Opinions {
	out := Opinions{Total: len(votes), Variants: map[string]Opinion{}, HoldAt: holdAt}
	test := newProportions(1.2, 0.05, holdAt/2)
	var open Stratum
	for _, v := range votes {
		o, known := out.Variants[v.Variant]
		if !known {
			o.Ratings = map[string]int{}
		}
		o.Ratings[v.Rating]++
		bad := isBad(v.Rating)
		if bad {
			o.Bad++
		} else if isGood(v.Rating) {
			o.Good++
		}
		out.Variants[v.Variant] = o
		if !v.Compared {
			continue
		}
		open.add(cohortOf(v.Canary), bad)
		if open.both() {
			test.add(open)
			open = Stratum{}
			out.Worse = out.Worse || test.logE >= holdAt
		}
	}
	out.LogE = finite(test.logE)
	for name, o := range out.Variants {
		sum, n := 0, 0
		for k, r := range Ratings[:5] {
			sum, n = sum+(k+1)*o.Ratings[r], n+o.Ratings[r]
		}
		if n > 0 {
			mean := float64(sum) / float64(n)
			o.Mean = &mean
			out.Variants[name] = o
		}
	}
	return out
}
