package caddymodule

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/sources"
)

// loadFile compiles a features file without a server.
func loadFile(path string) (*evaluator.Ruleset, error) {
	text, err := (&sources.File{Path: path}).Load(context.Background())
	if err != nil {
		return nil, err
	}
	doc, err := evaluator.Decode(text.Name, text.Body)
	if doc == nil {
		return nil, err
	}
	program, err := evaluator.Compile(doc) // with the mistakes of decoding
	if err != nil {
		return nil, err
	}
	return program.With(nil), nil
}

func runEvaluate(c *cobra.Command, names []string) error {
	get := func(name string) string { s, _ := c.Flags().GetString(name); return s }
	explain, _ := c.Flags().GetBool("explain")
	var rules *evaluator.Ruleset
	if file := get("flags"); file != "" {
		var err error
		if rules, err = loadFile(file); err != nil {
			return err
		}
	}
	var now *moment
	if at := get("at"); at != "" {
		t, err := parseMoment(at)
		if err != nil {
			return fmt.Errorf("--%w", err)
		}
		now = &t
	}
	ask := func(q question, path bool) (map[string]explained, error) {
		if len(q.Flags) == 0 {
			q.Flags = names
		}
		if environment := get("environment"); environment != "" && q.Environment == nil {
			q.Environment = &environment
		}
		if q.At == nil {
			q.At = now
		}
		if rules != nil {
			return answer(rules, q, "production", path), nil
		}
		var out struct{ Decisions map[string]explained }
		_, err := api(c, http.MethodPost, "evaluate", q, &out)
		if !path {
			for name, d := range out.Decisions {
				d.Path = nil
				out.Decisions[name] = d
			}
		}
		return out.Decisions, err
	}
	if contexts := get("contexts"); contexts != "" {
		return evaluateLines(contexts, func(q question) (map[string]explained, error) { return ask(q, explain) })
	}
	var q question
	if text := get("context"); text != "" {
		if err := readObject(strings.NewReader(text), &q.Context); err != nil {
			return fmt.Errorf("--context: %w", noText(err))
		}
	}
	decisions, err := ask(q, true)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		err = writeLine(os.Stdout, map[string]any{"decisions": decisions})
	} else {
		printDecisions(decisions)
	}
	for _, name := range names {
		if err == nil && decisions[name].Code == evaluator.FlagNotFound {
			err = errFindings // its message is printed with the decision
		}
	}
	return err
}

// noText says what is missing where io.EOF says that there is nothing.
func noText(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("want a JSON object, got nothing")
	}
	return err
}

// line is a decision as a line of output tells it: no path unless asked for,
// and no value where the variant says the same.
type line struct {
	Enabled bool                `json:"enabled"`
	Variant string              `json:"variant"`
	Reason  evaluator.Reason    `json:"reason"`
	Detail  string              `json:"detail"`
	Value   json.RawMessage     `json:"value,omitempty"`
	Code    evaluator.ErrorCode `json:"error_code,omitempty"`
	Message string              `json:"error_message,omitempty"`
	Path    []evaluator.Step    `json:"path,omitempty"`
}

func lineOf(d explained) line {
	l := line{d.Enabled, d.Variant, d.Reason, d.Detail, d.Value, d.Code, d.Message, d.Path}
	switch text := string(d.Value); {
	case d.Variant == evaluator.On && text == "true", d.Variant == evaluator.Off && text == "false":
		l.Value = nil
	}
	return l
}

// evaluateLines answers each line of a file; a bad line is told with its number
// and the others go on.
func evaluateLines(path string, ask func(question) (map[string]explained, error)) error {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("--contexts: %w", err)
		}
		defer f.Close()
		in = f
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxBody)
	bad := 0
	for n := 1; lines.Scan(); n++ {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var q question
		if err := readObject(bytes.NewReader(text), &q); err != nil {
			fmt.Fprintf(os.Stderr, "%s:%d: %s\n", printable(path), n, printable(err.Error()))
			bad++
			continue
		}
		decisions, err := ask(q)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		told := make(map[string]line, len(decisions))
		for name, d := range decisions {
			told[name] = lineOf(d)
		}
		if err := writeLine(out, map[string]any{"decisions": told}); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("--contexts: %w", err)
	}
	if bad > 0 {
		return errors.Join(fmt.Errorf("%d lines were not read", bad), out.Flush())
	}
	return nil
}

func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func printDecisions(decisions map[string]explained) {
	for _, name := range sortedKeys(decisions) {
		d := decisions[name]
		fmt.Printf("%s: %s (%s)\n", printable(name), printable(d.Variant), strings.TrimSpace(string(d.Reason)+" "+printable(d.Detail)))
		if d.Message != "" {
			fmt.Printf("  %s\n", printable(d.Message))
		}
		for _, s := range d.Path {
			mark := "·"
			if s.Passed {
				mark = "✓"
			}
			fmt.Printf("  %s %s: %s\n", mark, printable(s.Check), printable(s.Info))
		}
	}
}

func runLint(c *cobra.Command, _ []string) error {
	var findings []evaluator.Finding
	if file, _ := c.Flags().GetString("flags"); file != "" {
		rules, err := loadFile(file)
		if err != nil {
			return err
		}
		findings = evaluator.Lint(rules, time.Now(), nil)
	} else {
		var out struct{ Findings []evaluator.Finding }
		if _, err := api(c, http.MethodGet, "lint", nil, &out); err != nil {
			return err
		}
		findings = out.Findings
	}
	if wantsJSON(c) {
		if findings == nil {
			findings = []evaluator.Finding{}
		}
		if err := writeLine(os.Stdout, map[string]any{"findings": findings}); err != nil {
			return err
		}
	}
	warnings := 0
	for _, f := range findings {
		if !wantsJSON(c) {
			fmt.Printf("%s:%d:%d: %s: flag %q: %s (%s)\n", printable(f.Source), f.Pos.Line, f.Pos.Column, f.Severity, f.Flag, printable(f.Message), f.Code)
		}
		if f.Severity == "warning" {
			warnings++
		}
	}
	if warnings > 0 {
		return errFindings
	}
	return nil
}
