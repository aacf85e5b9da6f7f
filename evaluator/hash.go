package evaluator

import (
	"crypto/sha256"
	"encoding/binary"
)

// Shares are counted in units of 1e-5 of a per cent point: a bucket is in
// [0, wholeShare), a percentage of p is p·perCent units.
const (
	perCent    = 100_000
	wholeShare = 100 * perCent
)

// Bucket returns the bucket of a targeting key in [0, 100), with five decimals.
//
// With h = SHA-256(key + salt) as a big-endian integer it is
// h mod 100 + ((h div 100) mod 100000) / 100000. Whole percentages give exactly
// the founding rollout's answers, and fractions refine them.
func Bucket(key, salt string) float64 { return float64(bucket(key, salt, "")) / perCent }

// bucket returns the bucket in units of 1e-5. With r = h mod 10^7, h mod 100 is
// r mod 100 and (h div 100) mod 100000 is r div 100: one reduction gives both.
func bucket(key, salt, purpose string) int64 {
	n := len(key) + len(salt) + len(purpose)
	if n <= 64 {
		var text [64]byte
		return place(sha256.Sum256(concat(text[:n], key, salt, purpose)))
	}
	if n <= 256 {
		var text [256]byte
		return place(sha256.Sum256(concat(text[:n], key, salt, purpose)))
	}
	return place(sha256.Sum256([]byte(key + salt + purpose)))
}

func concat(into []byte, key, salt, purpose string) []byte {
	copy(into[copy(into, key):], salt)
	copy(into[len(key)+len(salt):], purpose)
	return into
}

// place reduces a hash to a bucket. A remainder by a constant is a multiplication;
// those of the four words do not wait for one another.
func place(sum [sha256.Size]byte) int64 {
	const m = wholeShare
	const carry = (1 << 63 % m * 2) % m // 2^64 mod m
	word := func(i int) uint64 { return binary.BigEndian.Uint64(sum[i:]) % m }
	r := (word(0)*carry + word(8)) % m
	r = (r*carry + word(16)) % m
	r = (r*carry + word(24)) % m
	return int64(r%100*perCent + r/100)
}
