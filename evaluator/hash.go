package evaluator

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
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
	var short [192]byte
	var sum [sha256.Size]byte
	if n := len(key) + len(salt) + len(purpose); n <= len(short) {
		copy(short[copy(short[:], key):], salt)
		copy(short[len(key)+len(salt):], purpose)
		sum = sha256.Sum256(short[:n])
	} else {
		sum = sha256.Sum256([]byte(key + salt + purpose))
	}
	const m = wholeShare
	r := binary.BigEndian.Uint64(sum[0:]) % m
	r = bits.Rem64(r, binary.BigEndian.Uint64(sum[8:]), m)
	r = bits.Rem64(r, binary.BigEndian.Uint64(sum[16:]), m)
	r = bits.Rem64(r, binary.BigEndian.Uint64(sum[24:]), m)
	return int64(r%100*perCent + r/100)
}
