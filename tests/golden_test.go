package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// vectors are the golden decisions, which any implementation must reproduce.
type vectors struct {
	Sets []struct {
		Features json.RawMessage `json:"features"`
		Cases    []struct {
			Context     json.RawMessage `json:"context"`
			Environment string          `json:"environment"`
			Now         string          `json:"now"`
			Enabled     map[string]bool `json:"enabled"`
		} `json:"cases"`
	} `json:"sets"`
}

func goldenVectors(t *testing.T) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("../evaluator/testdata/cascade.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// decided is one decision of an output line; [strictly] refuses further fields.
type decided struct {
	Enabled *bool   `json:"enabled"`
	Variant *string `json:"variant"`
	Reason  *string `json:"reason"`
	Detail  *string `json:"detail"`
}

func strictly(t *testing.T, text string, v any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// All golden decisions, through the command that other implementations would be
// compared by.
func TestGoldenVectorsByCommand(t *testing.T) {
	p := newProcess(t, "", "", nil)
	decisions := 0
	for i, set := range goldenVectors(t).Sets {
		p.write("features.json", string(set.Features))
		var contexts bytes.Buffer
		for _, c := range set.Cases {
			var context bytes.Buffer // a line is a line
			if err := json.Compact(&context, c.Context); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&contexts, `{"context": %s, "environment": %q, "at": %q}`+"\n", &context, c.Environment, c.Now)
		}
		p.write("contexts.ndjson", contexts.String())
		features, file := filepath.Join(p.dir, "features.json"), filepath.Join(p.dir, "contexts.ndjson")
		out, errs, status := p.command("", "evaluate", "--flags", features, "--contexts", file)
		if status != 0 {
			t.Fatalf("set %d: status %d: %s", i, status, errs)
		}
		if piped, _, _ := p.command(contexts.String(), "evaluate", "--flags", features, "--contexts", "-"); piped != out {
			t.Errorf("set %d: standard input and a file give different answers", i)
		}
		lines := slices.Collect(strings.Lines(out))
		if len(lines) != len(set.Cases) {
			t.Fatalf("set %d: %d lines for %d contexts", i, len(lines), len(set.Cases))
		}
		for j, c := range set.Cases {
			var got struct {
				Decisions map[string]decided `json:"decisions"`
			}
			strictly(t, lines[j], &got)
			if len(got.Decisions) < len(c.Enabled) {
				t.Errorf("set %d case %d: %d decisions, want at least %d", i, j, len(got.Decisions), len(c.Enabled))
			}
			for name, want := range c.Enabled {
				decisions++
				d := got.Decisions[name]
				if d.Enabled == nil || d.Variant == nil || d.Reason == nil || d.Detail == nil {
					t.Fatalf("set %d case %d flag %q: a field is missing: %s", i, j, name, lines[j])
				}
				if *d.Enabled != want || (*d.Variant != "off") != want {
					t.Errorf("set %d case %d flag %q: %s, want enabled %t", i, j, name, lines[j], want)
				}
			}
		}
	}
	if decisions != 1225 {
		t.Errorf("%d decisions, want 1225", decisions)
	}
}
