package caddymodule

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

func addSimulate(c *cobra.Command) {
	c.Long = `Replays what happened through a flag's guard, offline: would it have tripped,
when, why, and with which settings.

A trace has one request a line, in order of arrival, times in seconds:

  {"t": 12.345, "user": "u17", "canary": true, "status": 200, "ttfb": 0.052, "duration": 0.06, "outcome": "ok"}

outcome is ok, error, aborted, client_gone or unfinished; user may be missing;
another epoch than before marks a change of the percentage. Caddy's JSON access
log works too, in the order it was written.

Each verdict is a line of JSON, and the last line is what it all came to. The
exit status is 0 whatever the verdict, and 1 where there is none.`
	f := c.Flags()
	f.String("flags", "", "A features file that defines the flag (default: a guard with its defaults)")
	f.String("flag", "", "The flag (default: the only one of the file)")
	f.String("trace", "", "A trace or an access log ('-': standard input)")
	f.String("user", "", "Of an access log: the field that tells users apart, as request.client_ip (default: user_id)")
	f.String("scenario", "", "Instead of a trace: a built-in scenario; `list` shows them")
	f.Uint64("seed", 1, "Of a scenario: another one is other traffic")
	f.Bool("print", false, "Of a scenario: print its traffic as a trace, and no verdict")
	f.Bool("quiet", false, "No progress on standard error")
	c.MarkFlagsMutuallyExclusive("trace", "scenario")
	c.MarkFlagsMutuallyExclusive("trace", "print")
	c.MarkFlagsMutuallyExclusive("trace", "seed")
}

func runSimulate(c *cobra.Command, _ []string) error {
	get := func(name string) string { s, _ := c.Flags().GetString(name); return s }
	var s *simulation.Scenario
	switch id := get("scenario"); {
	case id == "list":
		return listScenarios()
	case id != "":
		if s = simulation.Find(id); s == nil {
			var ids []string
			for _, s := range simulation.Scenarios {
				ids = append(ids, s.ID)
			}
			return fmt.Errorf("--scenario: unknown scenario %q%s; there are %s", id, didYouMean(id, ids), strings.Join(ids, ", "))
		}
	case get("trace") == "":
		return errors.New("want --trace FILE or --scenario NAME (`--scenario list` shows them)")
	}
	config, flag, err := simulatedGuard(get("flags"), get("flag"))
	if err != nil {
		return err
	}
	if s != nil {
		config.Share = s.Share()
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	if yes, _ := c.Flags().GetBool("print"); yes {
		return printScenario(c, s, out)
	}
	replay := simulation.NewReplay(config)
	replay.Say = func(l simulation.Line) {
		_ = writeLine(out, l)
		_ = out.Flush()
	}
	quiet, _ := c.Flags().GetBool("quiet")
	p := &replayProgress{quiet: quiet, next: time.Now().Add(2 * time.Second)}
	defer p.done()
	if s != nil {
		seed, _ := c.Flags().GetUint64("seed")
		for q := range s.Requests(seed) {
			if err := replay.Add(q); err != nil {
				return err
			}
			if p.see(q.T); replay.Tripped() {
				break
			}
		}
	} else if err := replayFile(get("trace"), flag, get("user"), replay, p); err != nil {
		return err
	}
	result := replay.Finish()
	p.done()
	switch {
	case result.CanaryRequests == 0:
		fmt.Fprintln(os.Stderr, `no request is of the canary ("canary": true): there is nothing to compare`)
	case result.ControlRequests == 0:
		fmt.Fprintln(os.Stderr, `no request is of the control ("canary": false): there is nothing to compare`)
	}
	return writeLine(out, result)
}

// simulatedGuard is the guard of a flag of a features file, or that of a flag that
// says nothing about it.
func simulatedGuard(file, name string) (c monitors.GuardConfig, flag string, err error) {
	if file == "" {
		c = guardConfig(evaluator.DefaultGuard())
		c.Share = 0.1
		return c, name, nil
	}
	r, err := loadFile(file)
	if err != nil {
		return c, "", err
	}
	names := make([]string, r.Len())
	for i := range names {
		names[i] = r.Definition(i).Name
	}
	if name == "" && len(names) == 1 {
		name = names[0]
	}
	i := r.Index(name)
	switch {
	case name == "":
		return c, "", fmt.Errorf("%s: want --flag NAME: it has %d flags", file, len(names))
	case i < 0:
		return c, "", fmt.Errorf("--flag: %q is not defined in %s%s", name, file, didYouMean(name, names))
	case !r.Definition(i).Guard.Enabled:
		return c, "", fmt.Errorf("flag %q: its guard is turned off (`guard: false`)", name)
	}
	if !r.Splits(i) {
		fmt.Fprintf(os.Stderr, "flag %q splits nobody: in force it has no control and no guard; it is played as if it had\n", name)
	}
	if thresholdsOf(r.Definition(i)).Any() {
		fmt.Fprintf(os.Stderr, "flag %q: its thresholds are not played, only its guard\n", name)
	}
	c = guardConfig(r.Definition(i).Guard)
	c.Share = r.CanaryShare(i)
	if c.Share <= 0 || c.Share >= 1 {
		c.Share = 0 // as in the trace
	}
	return c, name, nil
}

func listScenarios() error {
	t := newTable("SCENARIO", "ANSWER", "WHAT HAPPENS")
	for _, s := range simulation.Scenarios {
		t.row(s.ID, string(s.Want), s.Summary)
	}
	return t.flush()
}

func printScenario(c *cobra.Command, s *simulation.Scenario, out *bufio.Writer) error {
	if s == nil {
		return errors.New("--print: want --scenario NAME")
	}
	seed, _ := c.Flags().GetUint64("seed")
	for q := range s.Requests(seed) {
		if err := writeLine(out, q); err != nil {
			return err
		}
	}
	return nil
}

// mostLine bounds a line of a trace.
const mostLine = 1 << 20

// logReach is how long a request of an access log may take to be put in order.
const logReach = 15 * 60 // seconds

// doubtfulJump is how long after the one before a request of a trace is doubted.
const doubtfulJump = 3600 // seconds

// replayFile plays the lines of a file. Bad ones are told with their number, and
// the others go on.
func replayFile(path, flag, user string, replay *simulation.Replay, p *replayProgress) error {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewReaderSize(in, 1<<16)
	log := simulation.AccessLog{Flag: flag, User: user}
	sorter := simulation.Sorter{Reach: logReach}
	number, played, bad, vague, known := 0, 0, 0, 0, false
	play := func(q simulation.Request) error {
		p.see(q.T)
		return replay.Add(q)
	}
	complainOf := func(number int, err error) {
		if bad++; bad <= 10 {
			fmt.Fprintf(os.Stderr, "%s:%d: %v\n", path, number, err)
		}
	}
	complain := func(err error) { complainOf(number, err) }
	// One wrong time must not put all that follows into its past: a request that
	// comes long after the one before waits for the next one to agree.
	var doubted *simulation.Request
	doubtedAt, last := 0, math.Inf(-1)
	settle := func() {
		if q := doubted; q != nil {
			doubted, last = nil, q.T
			if err := play(*q); err != nil {
				complainOf(doubtedAt, err)
			}
		}
	}
	playTrace := func(q simulation.Request) error {
		if doubted != nil && q.T < doubted.T-doubtfulJump && q.T >= last-1 {
			complainOf(doubtedAt, fmt.Errorf("t: %s is long after the line above, and the next line is not", strconv.FormatFloat(doubted.T, 'f', -1, 64)))
			played--
			doubted = nil
		}
		settle()
		if q.T-last > doubtfulJump {
			doubted, doubtedAt = &q, number
			return nil
		}
		last = max(last, q.T)
		return play(q)
	}
	for !replay.Tripped() {
		line, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLongLine) {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if number++; len(line) == 0 && errors.Is(err, io.EOF) {
			number--
			break
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		switch text := bytes.TrimSpace(line); {
		case errors.Is(err, errLongLine):
			complain(err)
		case len(text) == 0:
		case simulation.IsAccessLog(text):
			if flag == "" {
				return errors.New("an access log: want --flag NAME")
			}
			q, err := log.Parse(text)
			if err == nil {
				known = known || q.User != ""
				played++
				err = sorter.Add(q, play)
			}
			if err != nil && !errors.Is(err, simulation.ErrOther) {
				complain(err)
			}
		default:
			q, err := simulation.ParseRequest(text)
			if err == nil {
				played++
				if q.Status == 0 && q.Outcome == "" {
					vague++
				}
				err = playTrace(q)
			}
			if err != nil {
				complain(err)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	settle()
	if err := sorter.Flush(play); err != nil {
		complain(err)
	}
	switch {
	case played == 0 && bad == 0:
		return fmt.Errorf("%s: no line is a request that the split of %q decided", path, flag)
	case played == 0:
		return fmt.Errorf("%s: none of %d lines can be read", path, number)
	case bad > played:
		return fmt.Errorf("%s: %d of %d lines cannot be read", path, bad, number)
	case bad > 0:
		fmt.Fprintf(os.Stderr, "%s: %d of %d lines were left out\n", path, bad, number)
	}
	if vague > 0 {
		fmt.Fprintf(os.Stderr, "%s: %d of %d lines have neither status nor outcome: they are taken for well\n", path, vague, number)
	}
	if user != "" && !known {
		fmt.Fprintf(os.Stderr, "%s: no line has %s: nobody is known\n", path, user)
	}
	return nil
}

var errLongLine = fmt.Errorf("the line is longer than %d bytes", mostLine)

// readLine returns the next line; with the last one io.EOF. Of a line that is too
// long it returns nothing but an error.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > mostLine {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			if err == nil {
				err = errLongLine
			}
			return nil, err
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// replayProgress tells on standard error how far a long replay is.
type replayProgress struct {
	quiet    bool
	next     time.Time
	requests int
	first    float64
	told     bool
}

func (p *replayProgress) see(t float64) {
	if p.requests == 0 {
		p.first = t
	}
	p.requests++
	if p.quiet || p.requests%1024 != 0 || time.Now().Before(p.next) {
		return
	}
	p.next, p.told = time.Now().Add(time.Second), true
	at := time.Duration((t - p.first) * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(os.Stderr, "\r%d requests, %s of the trace ", p.requests, at)
}

func (p *replayProgress) done() {
	if p.told {
		p.told = false
		fmt.Fprintln(os.Stderr)
	}
}
