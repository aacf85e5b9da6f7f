package state

import (
	"fmt"
	"testing"
)

// BenchmarkTripSynced is one trip from the call to the end of its fsync.
func BenchmarkTripSynced(b *testing.B) {
	s := Open(b.TempDir(), Options{})
	defer s.Close()
	for b.Loop() {
		_, p := s.Trip(start, TripInput{Flag: "checkout", Test: "errors", Evidence: []byte(`{"log_e":9.4,"canary":{"requests":12,"bad":9}}`)})
		mustSync(b, p)
	}
}

// BenchmarkTripInMemory is what the caller of Trip waits for.
func BenchmarkTripInMemory(b *testing.B) {
	s := Open(b.TempDir(), Options{})
	defer s.Close()
	i := 0
	for b.Loop() {
		s.Trip(start, TripInput{Flag: fmt.Sprint("f", i%1000), Test: "errors"})
		i++
	}
}

func BenchmarkFlag(b *testing.B) {
	s := Open("", Options{})
	s.Trip(start, TripInput{Flag: "checkout", Test: "errors"})
	for b.Loop() {
		s.Flag("checkout")
	}
}

// BenchmarkOpen is the opening of a directory with 10,000 trips and as many audit entries.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := Open(dir, Options{})
	for i := range 10_000 {
		s.Trip(start, TripInput{Flag: fmt.Sprint("f", i%100), Test: "errors", Evidence: []byte(`{"log_e":9.4,"canary":{"requests":12,"bad":9}}`)})
	}
	mustClose(b, s)
	for b.Loop() {
		mustClose(b, Open(dir, Options{}))
	}
}
