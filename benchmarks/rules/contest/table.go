package contest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// Outcome sums the runs of an entry in a scenario up.
type Outcome struct {
	Runs     int
	False    int           // tripped before the onset, or where nothing should
	Right    int           // tripped when they should
	Delay    time.Duration // of those after the onset, median
	Failures int           // of the canary from the onset until then, median
	Early    time.Duration // of the false ones after the start, median
}

// Outcome of an entry, by its number.
func (r *Row) Outcome(entry int) Outcome {
	o := Outcome{Runs: len(r.Trips[entry])}
	var delays, early []time.Duration
	var failures []int
	onset := r.Scenario.OnsetAt()
	for _, t := range r.Trips[entry] {
		switch {
		case !t.Tripped:
		case r.Scenario.Want != monitors.Trip || t.At <= onset:
			o.False++
			early = append(early, t.At)
		default:
			o.Right++
			delays, failures = append(delays, t.At-onset), append(failures, t.Failures)
		}
	}
	o.Delay, o.Failures, o.Early = median(delays), median(failures), median(early)
	return o
}

func median[T int | time.Duration](v []T) (m T) {
	if len(v) == 0 {
		return m
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// WriteTable writes a table in Markdown, and what its cells mean.
func WriteTable(w io.Writer, rows []Row) error {
	var b strings.Builder
	b.WriteString("| scenario | right |")
	for _, e := range Entries {
		fmt.Fprintf(&b, " %s |", e.Name)
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", 2+len(Entries)) + "\n")
	runs := 0
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s: %s | %s |", r.Scenario.ID, r.Scenario.Summary, r.Scenario.Want)
		for i := range Entries {
			o := r.Outcome(i)
			runs = o.Runs
			fmt.Fprintf(&b, " %s |", o.cell(r.Scenario.Want == monitors.Trip))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nOf %d runs each. \"1.2 s, 13\": all tripped, 1.2 s after the onset, after 13 requests of the canary had failed since then "+
		"(medians). \"60 %%: …\": so many of the runs did. \"never\": none did by the end of the scenario. \"·\": rightly, none did. "+
		"**FALSE**: tripped before the onset, or where nothing is wrong with the canary; and how long after the start (median).\n\n", runs)
	for _, e := range Entries {
		fmt.Fprintf(&b, "- %s: %s\n", e.Name, e.Says)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (o Outcome) cell(trip bool) string {
	percent := func(n int) float64 { return 100 * float64(n) / float64(o.Runs) }
	var parts []string
	if o.False > 0 {
		parts = append(parts, fmt.Sprintf("**FALSE %.0f %%** at %s", percent(o.False), Seconds(o.Early)))
	}
	if right := fmt.Sprintf("%s, %d", Seconds(o.Delay), o.Failures); o.Right == o.Runs {
		parts = append(parts, right)
	} else if o.Right > 0 {
		parts = append(parts, fmt.Sprintf("%.0f %%: %s", percent(o.Right), right))
	} else if trip && o.False == 0 {
		parts = append(parts, "never")
	}
	if len(parts) == 0 {
		return "·"
	}
	return strings.Join(parts, "; ")
}

// Seconds writes a time in seconds.
func Seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
