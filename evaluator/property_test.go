package evaluator

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"testing"
	"time"
)

const keys = 1_000_000

// within checks a count of n independent draws against its share, to four
// standard deviations.
func within(t *testing.T, what string, count, n int, share float64) {
	t.Helper()
	want := float64(n) * share
	if sigma := math.Sqrt(want * (1 - share)); math.Abs(float64(count)-want) > 4*sigma+1 {
		t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, count, n, want, 4*sigma)
	}
}

// eachKey calls f with the bucket of each of a million keys.
func eachKey(salt, purpose string, f func(k int, bucket int64)) {
	key := make([]byte, 0, 32)
	for k := range keys {
		key = strconv.AppendInt(append(key[:0], "user-"...), int64(k), 10)
		f(k, bucket(string(key), salt, purpose))
	}
}

// TestShares: each percentage gets its share of a million keys, the finest
// ones too.
func TestShares(t *testing.T) {
	percentages := []float64{0, 0.001, 0.01, 0.1, 1, 5, 10, 12.345, 25, 33.333, 50, 66.6, 90, 99, 99.999, 100}
	counts := make([]int, len(percentages))
	var byUnit [100]int
	eachKey("checkout_v2", "", func(_ int, b int64) {
		if b < 0 || b >= wholeShare {
			t.Fatalf("bucket %d", b)
		}
		byUnit[b/perCent]++
		for i, p := range percentages {
			if b < int64(ShareOf(p)) {
				counts[i]++
			}
		}
	})
	for i, p := range percentages {
		within(t, fmt.Sprintf("%g per cent", p), counts[i], keys, p/100)
	}
	if counts[0] != 0 || counts[len(counts)-1] != keys {
		t.Errorf("0 per cent: %d, 100 per cent: %d", counts[0], counts[len(counts)-1])
	}
	if x := chiSquare(byUnit[:], keys); x > chiSquareLimit(99) {
		t.Errorf("buckets are not even: chi-square %.1f with 99 degrees of freedom", x)
	}
}

// TestVariantShares: variants get their weights of the canary, and the hash
// that deals them out is independent of the one that chose the canary.
func TestVariantShares(t *testing.T) {
	weights := []int64{20_000, 500_000, 3_000_000, wholeShare} // 0.2 %, 4.8 %, 25 %, 70 %
	shares := []float64{0.002, 0.048, 0.25, 0.70}
	rollout := make([]int64, keys)
	eachKey("checkout_v2", "", func(k int, b int64) { rollout[k] = b })
	const low, high = 10 * perCent, 60 * perCent // canaries of two sizes
	var all, inLow, inHigh [4]int
	nLow, nHigh := 0, 0
	var table [10][10]int
	eachKey("checkout_v2", variantPurpose, func(k int, b int64) {
		v := 0
		for b >= weights[v] {
			v++
		}
		all[v]++
		if rollout[k] < low {
			inLow[v]++
			nLow++
		}
		if rollout[k] < high {
			inHigh[v]++
			nHigh++
		}
		table[rollout[k]/(10*perCent)][b/(10*perCent)]++
	})
	for v, s := range shares {
		within(t, fmt.Sprintf("variant %d of all", v), all[v], keys, s)
		within(t, fmt.Sprintf("variant %d of the 10 per cent", v), inLow[v], nLow, s)
		within(t, fmt.Sprintf("variant %d of the 60 per cent", v), inHigh[v], nHigh, s)
	}
	if x := independence(table); x > chiSquareLimit(81) {
		t.Errorf("variant and rollout go together: chi-square %.1f with 81 degrees of freedom", x)
	}
}

// TestFlagsAreIndependent: who is in one flag's rollout says nothing about
// another's, though their salts differ by a letter.
func TestFlagsAreIndependent(t *testing.T) {
	first := make([]int64, keys)
	eachKey("checkout_v1", "", func(k int, b int64) { first[k] = b })
	var table [10][10]int
	eachKey("checkout_v2", "", func(k int, b int64) { table[first[k]/(10*perCent)][b/(10*perCent)]++ })
	if x := independence(table); x > chiSquareLimit(81) {
		t.Errorf("two flags' rollouts go together: chi-square %.1f with 81 degrees of freedom", x)
	}
}

func chiSquare(counts []int, n int) (x float64) {
	want := float64(n) / float64(len(counts))
	for _, c := range counts {
		x += (float64(c) - want) * (float64(c) - want) / want
	}
	return x
}

// independence is Pearson's statistic of a contingency table.
func independence(table [10][10]int) (x float64) {
	var rows, columns [10]float64
	n := 0.0
	for i := range table {
		for j, c := range table[i] {
			rows[i] += float64(c)
			columns[j] += float64(c)
			n += float64(c)
		}
	}
	for i := range table {
		for j, c := range table[i] {
			want := rows[i] * columns[j] / n
			x += (float64(c) - want) * (float64(c) - want) / want
		}
	}
	return x
}

// chiSquareLimit is the quantile of 1 - 3e-5 (four standard deviations of a
// normal variable) by the Wilson-Hilferty approximation.
func chiSquareLimit(degrees float64) float64 {
	k := 2 / (9 * degrees)
	return degrees * math.Pow(1-k+4*math.Sqrt(k), 3)
}

// TestRaisingTakesNobodyOut: whoever is on stays on, with the same variant,
// while the percentage climbs by thousandths and by leaps.
func TestRaisingTakesNobodyOut(t *testing.T) {
	const definition = `{"f": {"active": true, "percentage_rollout": 1, "variants": {"a": {"weight": 33.3}, "b": {"weight": 33.3}, "off": {"weight": 33.4}}, "regions": ["RO"]}}`
	p := compileText(t, definition)
	var ladder []float64
	for i := range 200 {
		ladder = append(ladder, 10+float64(i)/1000)
	}
	ladder = append(ladder, 0, 0.001, 0.002, 0.01, 0.5, 1, 1.001, 2, 5, 9.999, 11, 12.345, 25, 50, 99, 99.999, 100)
	rules := make([]*Ruleset, 0, len(ladder))
	slices.Sort(ladder)
	for _, percent := range ladder {
		rules = append(rules, p.With(map[string]State{"f": {Share: share(percent)}}))
	}
	seen := map[string]int{}
	for k := range 2000 {
		c := &Context{}
		c.Set(UserID, String("user-"+strconv.Itoa(k)))
		c.Set(Region, String("RO"))
		last := "" // the variant, as soon as the rollout has come to the user
		for step, r := range rules {
			d := r.EvaluateAt(0, c, time.Now())
			came := d != r.flags[0].rolledOut
			switch {
			case last != "" && !came:
				t.Fatalf("user %d is taken out at step %d", k, step)
			case last != "" && d.Variant != last:
				t.Fatalf("user %d goes from %s to %s at step %d", k, last, d.Variant, step)
			case came:
				last = d.Variant
			}
		}
		seen[last]++
	}
	for _, v := range []string{"a", "b", "off"} {
		within(t, v, seen[v], 2000, 1.0/3)
	}
}

// TestBucketByItsDefinition: the single reduction gives what the formula says.
func TestBucketByItsDefinition(t *testing.T) {
	for k := range 2000 {
		key := "key-" + strconv.Itoa(k*k)
		whole, frac := bucketByDefinition(key + "salt")
		if got, want := bucket(key, "salt", ""), whole*perCent+frac; got != want {
			t.Fatalf("%s: %d, want %d", key, got, want)
		}
	}
	long := make([]byte, 5000)
	for i := range long {
		long[i] = 'x'
	}
	for _, n := range []int{0, 1, 186, 187, 188, 191, 192, 193, 5000} {
		whole, frac := bucketByDefinition(string(long[:n]) + "salt")
		if got, want := bucket(string(long[:n]), "salt", ""), whole*perCent+frac; got != want {
			t.Errorf("a key of %d bytes: %d, want %d", n, got, want)
		}
	}
}

// bucketByDefinition is the formula as the documents give it, in integers of
// any size: h mod 100, and (h div 100) mod 100000.
func bucketByDefinition(text string) (whole, frac int64) {
	sum := sha256.Sum256([]byte(text))
	h := new(big.Int).SetBytes(sum[:])
	hundred, rest := big.NewInt(100), new(big.Int)
	h.DivMod(h, hundred, rest)
	return rest.Int64(), new(big.Int).Mod(h, big.NewInt(100_000)).Int64()
}
