package evaluator

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

type cascadeVectors struct {
	Buckets []struct {
		UserID json.RawMessage `json:"user_id"`
		Salt   string          `json:"salt"`
		Bucket int             `json:"bucket"`
	} `json:"buckets"`
	Sets []struct {
		Features json.RawMessage `json:"features"`
		Cases    []struct {
			Context     json.RawMessage `json:"context"`
			Environment string          `json:"environment"`
			Now         time.Time       `json:"now"`
			Enabled     map[string]bool `json:"enabled"`
		} `json:"cases"`
	} `json:"sets"`
}

func loadCascade(t testing.TB) (v cascadeVectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/cascade.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCascadeVectors(t *testing.T) {
	v := loadCascade(t)
	decisions := 0
	for i, set := range v.Sets {
		doc, err := Decode("features.json", set.Features)
		if err != nil {
			t.Fatalf("set %d: %v", i, err)
		}
		program, err := Compile(doc)
		if err != nil {
			t.Fatalf("set %d: %v", i, err)
		}
		rules := program.With(nil)
		for j, c := range set.Cases {
			ctx := Context{Environment: c.Environment}
			if err := json.Unmarshal(c.Context, &ctx); err != nil {
				t.Fatal(err)
			}
			var all Evaluation
			all.Reset(rules, &ctx, c.Now)
			all.All()
			for name, want := range c.Enabled {
				decisions++
				if got := rules.Evaluate(name, &ctx, c.Now); got.Enabled != want {
					t.Errorf("set %d case %d flag %q: enabled %t (%s %s), want %t", i, j, name, got.Enabled, got.Reason, got.Detail, want)
				}
				if got := all.Decide(rules.Index(name)); got.Enabled != want {
					t.Errorf("set %d case %d flag %q decided with all others: enabled %t, want %t", i, j, name, got.Enabled, want)
				}
				if got, _ := all.Explain(rules.Index(name)); got.Enabled != want {
					t.Errorf("set %d case %d flag %q explained: enabled %t, want %t", i, j, name, got.Enabled, want)
				}
			}
		}
	}
	if decisions != 1225 {
		t.Errorf("%d decisions, want 1225", decisions)
	}
}

func TestBucketVectors(t *testing.T) {
	v := loadCascade(t)
	for _, b := range v.Buckets {
		var raw any
		if err := decodeNumbers(b.UserID, &raw); err != nil {
			t.Fatal(err)
		}
		if got := Bucket(Of(raw).Text(), b.Salt); int(got) != b.Bucket {
			t.Errorf("bucket(%s, %q) = %v, want %d", b.UserID, b.Salt, got, b.Bucket)
		}
	}
	if len(v.Buckets) != 75 {
		t.Errorf("%d buckets, want 75", len(v.Buckets))
	}
}
