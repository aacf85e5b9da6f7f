package evaluator

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const fourConditions = `{"active": true, "regions": ["US", "CA", "RO"], "account_types": ["premium", "enterprise"], "beta_program": true, "percentage_rollout": 10}`

func mustRules(tb testing.TB, text string) *Ruleset {
	tb.Helper()
	doc, err := Decode("test.json", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	p, err := Compile(doc)
	if err != nil {
		tb.Fatal(err)
	}
	return p.With(nil)
}

func manyFlags(n int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"flag_%04d": %s`, i, fourConditions)
	}
	b.WriteByte('}')
	return b.String()
}

var userID, region, accountType, betaProgram = AttributeOf(UserID), AttributeOf(Region), AttributeOf(AccountType), AttributeOf(BetaProgram)

func fill(c *Context) {
	c.Reset()
	c.Environment = "production"
	c.SetAttribute(userID, String("user-1234567"))
	c.SetAttribute(region, String("RO"))
	c.SetAttribute(accountType, String("premium"))
	c.SetAttribute(betaProgram, String("true"))
}

var sink *Decision

// BenchmarkOneFlag: region, account type, beta and a 10 % rollout, with the
// context built each time.
func BenchmarkOneFlag(b *testing.B) {
	r := mustRules(b, `{"checkout_v2": `+fourConditions+`}`)
	var c Context
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		fill(&c)
		sink = r.EvaluateAt(0, &c, now)
	}
}

func BenchmarkStaticFlag(b *testing.B) {
	r := mustRules(b, `{"checkout_v2": {"active": true}}`)
	var c Context
	fill(&c)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sink = r.EvaluateAt(0, &c, now)
	}
}

// BenchmarkHash is the floor of every rollout.
func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		bucket("user-1234567", "checkout_v2", "")
	}
}

func benchmarkMany(b *testing.B, n int) {
	r := mustRules(b, manyFlags(n))
	var c Context
	var e Evaluation
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		fill(&c)
		e.Reset(r, &c, now)
		sink = e.All()[0]
	}
}

func Benchmark100Flags(b *testing.B)  { benchmarkMany(b, 100) }
func Benchmark1000Flags(b *testing.B) { benchmarkMany(b, 1000) }

func BenchmarkRule(b *testing.B) {
	r := mustRules(b, `{"x": {"active": true, "rules": [{"when": "region == 'RO' && account_type in ['premium', 'free']", "serve": "off"}]}}`)
	var c Context
	fill(&c)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sink = r.EvaluateAt(0, &c, now)
	}
}

// BenchmarkLoop asks each of a list: twice as long a list takes twice as long.
func BenchmarkLoop(b *testing.B) {
	r := mustRules(b, `{"x": {"active": true, "rules": [{"when": "groups.exists(g, g == 'none')", "serve": "off"}]}}`)
	for _, n := range []int{10, 1000, 9000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			groups := make([]any, n)
			for i := range groups {
				groups[i] = "group-" + strconv.Itoa(i)
			}
			c := NewContext("", map[string]any{"groups": groups})
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				sink = r.EvaluateAt(0, c, now)
			}
		})
	}
}

func BenchmarkCompile1000(b *testing.B) {
	text := []byte(manyFlags(1000))
	b.ReportAllocs()
	for b.Loop() {
		doc, err := Decode("f", text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err = Compile(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWith1000(b *testing.B) {
	p := mustRules(b, manyFlags(1000)).Program()
	b.ReportAllocs()
	for b.Loop() {
		p.With(nil)
	}
}

func TestEvaluateAllocatesNothing(t *testing.T) {
	r := mustRules(t, manyFlags(100))
	now := time.Now()
	var c Context
	var e Evaluation
	wantNone := func(what string, f func()) {
		t.Helper()
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", what, n)
		}
	}
	wantNone("one flag", func() { fill(&c); sink = r.EvaluateAt(3, &c, now) })
	wantNone("all flags", func() { fill(&c); e.Reset(r, &c, now); e.All() })
	static := mustRules(t, `{"a": {"active": true}}`)
	wantNone("a static flag", func() { sink = static.EvaluateAt(0, &c, now) })
}
