// Command rules plays the guard's scenarios through the guard and through the
// rules that proxies, breakers and rollout controllers commonly use, all of them
// on the same requests, and prints what each came to as a table in Markdown.
//
//	go run ./rules [-runs 20] [-scenario S01,S11] [-seed 1]
//
// Every rule is told of the same failures as the guard, also of those that a
// product which reads statuses does not see: answers broken off in the middle
// (S09), and failures that a trailer tells (G1). The same seed makes the same
// requests; the guard's replay hashes users anew each time, which moves its medians
// a little. The table takes two to three minutes on two cores.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/benchmarks/rules/contest"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

func main() {
	log.SetFlags(0)
	runs := flag.Int("runs", 20, "runs a scenario, each with a seed of its own")
	only := flag.String("scenario", "", "ids of scenarios, by comma; all of them if empty")
	seed := flag.Uint64("seed", 1, "of the first run; the next has the next")
	flag.Parse()
	scenarios, err := choose(*only)
	if err != nil {
		log.Fatal(err)
	}
	if *runs < 1 {
		log.Fatalf("-runs: want 1 or more, got %d", *runs)
	}
	began := time.Now()
	var rows []contest.Row
	for i, s := range scenarios {
		rows = append(rows, contest.Hold(s, *runs, *seed))
		fmt.Fprintf(os.Stderr, "\r%d of %d scenarios, %.0f s ", i+1, len(scenarios), time.Since(began).Seconds())
	}
	fmt.Fprintln(os.Stderr)
	if err := contest.WriteTable(os.Stdout, rows); err != nil {
		log.Fatal(err)
	}
}

// choose finds the scenarios of some ids.
func choose(only string) (chosen []*simulation.Scenario, err error) {
	if only == "" {
		for i := range simulation.Scenarios {
			chosen = append(chosen, &simulation.Scenarios[i])
		}
		return chosen, nil
	}
	for id := range strings.SplitSeq(only, ",") {
		s := simulation.Find(strings.TrimSpace(id))
		if s == nil {
			return nil, fmt.Errorf("-scenario: no scenario %q", id)
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}
