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
	if err != nil {
		return nil, err
	}
	program, err := evaluator.Compile(doc)
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
	ask := func(q question, path bool) (map[string]explained, error) {
		if len(q.Flags) == 0 {
			q.Flags = names
		}
		if environment := get("environment"); environment != "" && q.Environment == nil {
			q.Environment = &environment
		}
		if at := get("at"); at != "" && q.At == nil {
			t, err := time.Parse(time.RFC3339, at)
			if err != nil {
				return nil, fmt.Errorf("--at: want a time as 2026-01-31T12:00:00Z, got %q", at)
			}
			q.At = &t
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
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		dec.UseNumber()
		if err := dec.Decode(&q.Context); err != nil {
			return fmt.Errorf("--context: want a JSON object: %w", err)
		}
	}
	decisions, err := ask(q, true)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return writeLine(os.Stdout, map[string]any{"decisions": decisions})
	}
	return printDecisions(decisions)
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
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var q question
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.UseNumber()
		dec.DisallowUnknownFields()
		if err := dec.Decode(&q); err != nil {
			fmt.Fprintf(os.Stderr, "%s:%d: want {\"context\": {…}, \"environment\": \"…\", \"at\": \"…\"}: %v\n", path, n, err)
			bad++
			continue
		}
		decisions, err := ask(q)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if err := writeLine(out, map[string]any{"decisions": decisions}); err != nil {
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

func printDecisions(decisions map[string]explained) error {
	for _, name := range sortedKeys(decisions) {
		d := decisions[name]
		fmt.Printf("%s: %s (%s %s)\n", name, d.Variant, d.Reason, d.Detail)
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
	return nil
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
