package caddymodule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
)

type table struct{ w *tabwriter.Writer }

func newTable(columns ...string) table {
	t := table{tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// printable keeps what others wrote from steering the terminal: escape
// sequences, line breaks, and characters that turn the direction of writing.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

func runList(c *cobra.Command, _ []string) error {
	var answer struct {
		Environment string
		Degraded    []string
		Flags       []flagView
	}
	raw, err := api(c, http.MethodGet, "flags", nil, &answer)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printRaw(raw)
	}
	for _, d := range answer.Degraded {
		fmt.Fprintln(os.Stderr, "degraded:", printable(d))
	}
	t := newTable("FLAG", "STATUS", "%", "CANARY REQUESTS", "ERRORS", "CONTROL REQUESTS", "ERRORS")
	for _, f := range answer.Flags {
		canary, control := f.Guard.Figures["canary"], f.Guard.Figures["control"]
		t.row(f.Name, f.Status, percent(f.Percentage), fmt.Sprint(canary.Requests), errorShare(canary), fmt.Sprint(control.Requests), errorShare(control))
	}
	return t.flush()
}

func percent(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) }

// describeMirror says in a line what copies of requests came to.
func describeMirror(m *monitors.MirrorFigures) string {
	var b strings.Builder
	b.WriteString("mirror:")
	for _, result := range monitors.MirrorResults() {
		if n := m.Results[result.String()]; n > 0 {
			fmt.Fprintf(&b, " %d %s,", n, result)
		}
	}
	fmt.Fprintf(&b, " p50 %s against %s, p99 %s against %s", seconds(m.Copy.P50), seconds(m.Request.P50), seconds(m.Copy.P99), seconds(m.Request.P99))
	return b.String()
}

// describeRollout says in a line where a rollout stands.
func describeRollout(s *rollout.Status) string {
	var b strings.Builder
	if len(s.Steps) == 0 {
		fmt.Fprintf(&b, "percentage: %s at %s %%", s.Phase, percent(s.Share))
	} else {
		fmt.Fprintf(&b, "rollout: step %d of %d at %s %%, %s", s.Step, len(s.Steps), percent(s.Share), s.Phase)
	}
	if s.By != "" {
		fmt.Fprintf(&b, " by %s", printable(s.By))
	}
	if s.Reason != "" {
		fmt.Fprintf(&b, ": %s", printable(s.Reason))
	}
	if s.Next != nil {
		fmt.Fprintf(&b, "; next %s %%", percent(*s.Next))
	}
	return b.String()
}

func errorShare(f monitors.Figures) string {
	if f.Requests == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100*f.ErrorRate)
}

func runShow(c *cobra.Command, args []string) error {
	var f flagView
	raw, err := api(c, http.MethodGet, flagPath(args[0]), nil, &f)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printRaw(raw)
	}
	fmt.Printf("%s: %s, %s %%\n", f.Name, f.Status, percent(f.Percentage))
	fmt.Printf("defined in %s:%d\n  %s\n", printable(f.Source), f.Position.Line, printable(string(f.Definition)))
	if o := f.State.Override; o != nil {
		fmt.Printf("%s by %s at %s: %s\n", o.Kind, printable(o.By), o.At.Local().Format(time.DateTime), printable(o.Reason))
	}
	if f.Rollout != nil {
		fmt.Println(describeRollout(f.Rollout))
	}
	if m := f.Mirror; m != nil {
		fmt.Println(describeMirror(m))
	}
	for _, trip := range f.State.Trips {
		var e monitors.Evidence
		_ = json.Unmarshal(trip.Evidence, &e) // a trip of another version shows without
		fmt.Printf("tripped at %s by %s: %s\n", trip.At.Local().Format("2006-01-02 15:04:05.000"), trip.Test, printable(e.Summary))
		for _, r := range e.Last {
			fmt.Printf("  failing request %s at %s: %s\n", printable(r.ID), r.At.Local().Format("15:04:05.000"), printable(r.Why))
		}
		fmt.Printf("  to undo: caddy feature-flags reset %s\n", f.Name)
	}
	switch {
	case f.State.HalfOpen != nil:
		fmt.Printf("half-open since %s: back in full on proof that it is no worse\n", f.State.HalfOpen.Local().Format(time.DateTime))
	case f.State.Retry != nil:
		fmt.Printf("to be tried again at %s\n", f.State.Retry.Local().Format(time.DateTime))
	}
	t := newTable("COHORT", "REQUESTS", "ERRORS", "P50", "P90", "P99", "CLIENT GONE")
	for _, name := range []string{"canary", "control"} {
		g := f.Guard.Figures[name]
		t.row(name, fmt.Sprint(g.Requests), errorShare(g), seconds(g.P50), seconds(g.P90), seconds(g.P99), fmt.Sprint(g.ClientGone))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if g := f.Guard.Test; g != nil && (len(f.State.Trips) == 0 || f.State.HalfOpen != nil) {
		showGuard(g)
	}
	fmt.Printf("since it was armed at %s: canary %d requests, %d errors, %d slow\n",
		f.Guard.Armed.Local().Format(time.DateTime), f.Guard.Canary.Requests, f.Guard.Canary.Errors, f.Guard.Canary.Slow)
	return nil
}

// showGuard says how canary and control compare.
func showGuard(g *monitors.GuardStatus) {
	verdict := string(g.Verdict)
	if g.Reason != "" {
		verdict += ": " + printable(g.Reason)
	}
	fmt.Printf("guard: %s (share %s %%, since %s)\n", verdict, strconv.FormatFloat(g.Share, 'g', 4, 64), g.Since.Local().Format(time.DateTime))
	evidence := "none yet"
	if e := g.LogE["total"]; e != nil {
		evidence = fmt.Sprintf("%.3g (trips at %.3g)", math.Exp(*e), math.Exp(g.TripAt))
	}
	fmt.Printf("  evidence against the canary: %s; compared: canary %d requests of about %d users, control %d of about %d\n",
		evidence, g.Canary.Judged, g.Canary.Users, g.Control.Judged, g.Control.Users)
	if g.Proof != nil {
		fmt.Printf("  proof that it is no worse: %.3g (back in full at 100)\n", math.Exp(*g.Proof))
	}
}

func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return time.Duration(s * float64(time.Second)).Round(100 * time.Microsecond).String()
}

// runWatch prints news until it is interrupted, over reloads and restarts.
func runWatch(c *cobra.Command, _ []string) error {
	connected, seen := false, ""
	for {
		headers := http.Header{"Accept": {"text/event-stream"}}
		if seen != "" {
			headers.Set("Last-Event-ID", seen)
		}
		resp, err := callAPI(c, http.MethodGet, "events", headers, nil)
		if err != nil {
			if !connected {
				return err
			}
			time.Sleep(500 * time.Millisecond)
			continue
		}
		if !connected {
			fmt.Fprintln(os.Stderr, "watching; press Ctrl-C to end")
		}
		connected = true
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			if id, found := strings.CutPrefix(lines.Text(), "id: "); found {
				seen = id
			}
			data, found := strings.CutPrefix(lines.Text(), "data: ")
			if !found {
				continue
			}
			if wantsJSON(c) {
				fmt.Println(data)
				continue
			}
			var n news
			if json.Unmarshal([]byte(data), &n) == nil {
				fmt.Println(strings.TrimRight(fmt.Sprintf("%s  %-28s %s %s %s", n.At.Local().Format("2006-01-02 15:04:05.000"), printable(n.Event), printable(n.Flag), printable(n.By), printable(n.Reason)), " "))
			}
		}
		resp.Body.Close()
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			fmt.Fprintln(os.Stderr, "an event was too long to show")
		}
		time.Sleep(100 * time.Millisecond)
	}
}
