package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	latencyClients = 16  // that ask one request after the other: the proxy's core is full
	latencyEach    = 150 // requests a client, target and cycle
)

// compareLatency prints quantiles of how long requests take, at full load. In each
// cycle every target has the proxy for itself for a while, in random order; the
// ratios are taken within the cycle.
func compareLatency(rounds, cycles int) error {
	lab, err := openLab()
	if err != nil {
		return err
	}
	defer lab.close()
	sites := mirrored(lab.origin)
	quantiles := []float64{0.5, 0.99}
	seen := make([][][]float64, len(sites)) // by site, quantile and cycle: µs
	for i := range seen {
		seen[i] = make([][]float64, len(quantiles))
	}
	names := make([]string, len(sites))
	for i, s := range sites {
		names[i] = s.name
	}
	for k := range rounds {
		proxy, err := lab.startProxy(names...)
		if err != nil {
			return err
		}
		for cycle := range cycles + 2 {
			for _, i := range rand.Perm(len(sites)) {
				times, err := ask(proxy.Targets[i])
				if err != nil {
					proxy.stop()
					return fmt.Errorf("%s: %w", names[i], err)
				}
				if cycle < 2 {
					continue // warming up
				}
				for j, q := range quantiles {
					seen[i][j] = append(seen[i][j], float64(times[int(q*float64(len(times)-1))].Nanoseconds())/1000)
				}
			}
		}
		proxy.stop()
		fmt.Fprintf(os.Stderr, "%d of %d rounds\n", k+1, rounds)
	}
	fmt.Printf("%-24s %8s %22s %8s %22s %8s\n", "target", "p50 µs", "ratio (95 %)", "p99 µs", "ratio (95 %)", "figure")
	for i, s := range sites {
		fmt.Printf("%-24s", s.name)
		for j := range quantiles {
			fmt.Printf(" %8.0f", median(seen[i][j]))
			if s.plain == "" {
				fmt.Printf(" %22s", "")
				continue
			}
			fmt.Printf("    %s", ratio(seen[i][j], seen[0][j]))
		}
		fmt.Printf(" %8s\n", s.figure)
	}
	return nil
}

// ask has clients ask a target and returns how long their requests took, sorted.
func ask(t target) ([]time.Duration, error) {
	times := make([]time.Duration, latencyClients*latencyEach)
	errs := make([]error, latencyClients)
	var clients sync.WaitGroup
	for k := range latencyClients {
		clients.Go(func() {
			c, err := dial(t.Address, t.Requests)
			if err != nil {
				errs[k] = err
				return
			}
			defer c.close()
			for i := range latencyEach {
				begun := time.Now()
				if errs[k] = c.run(1); errs[k] != nil {
					return
				}
				times[k*latencyEach+i] = time.Since(begun)
			}
		})
	}
	clients.Wait()
	slices.Sort(times)
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}
