package evaluator

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	featuresFile = "../docs/features-file.md"
	schemaFile   = "../docs/features.schema.json"
)

// TestDocsExamples loads every JSON and YAML block of the reference: each is a
// whole features file.
func TestDocsExamples(t *testing.T) {
	lines := strings.Split(readText(t, featuresFile), "\n")
	found := map[string]int{}
	for i := 0; i < len(lines); i++ {
		language, isFence := strings.CutPrefix(lines[i], "```")
		if !isFence {
			continue
		}
		start := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		if i == len(lines) {
			t.Fatalf("%s:%d: the block is not closed", featuresFile, start)
		}
		switch language {
		case "json", "yaml":
			found[language]++
			t.Run(fmt.Sprintf("line %d", start), func(t *testing.T) {
				doc, _ := Decode("example", []byte(strings.Join(lines[start:i], "\n")))
				if _, err := Compile(doc); err != nil {
					t.Error(err)
				}
			})
		case "text", "cel":
		default:
			t.Errorf("%s:%d: a block in %q, want json or yaml for a whole document, else text or cel", featuresFile, start, language)
		}
	}
	for _, language := range []string{"json", "yaml"} {
		if found[language] == 0 {
			t.Errorf("no %s block in %s", language, featuresFile)
		}
	}
}

// TestDocsFields wants every field in a table of the reference, and no others.
func TestDocsFields(t *testing.T) {
	text := readText(t, featuresFile)
	for what, heading := range map[string]string{
		"wrapped": "| field of the wrapped form |", "flag": "## Fields of a flag", "rule": "## Rules", "segment": "### Segments",
		"variant": "## Variants", "guard": "| field of `guard` |", "rollout": "| field of `rollout` |", "metadata": "## metadata",
	} {
		want := slices.Collect(maps.Keys(schemaProperties(t, what)))
		if what == "guard" {
			for prefix, part := range map[string]string{"errors.": "error_guard", "latency.": "latency_guard"} {
				for name := range schemaProperties(t, part) {
					want = append(want, prefix+name)
				}
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, firstColumn(t, text, heading)); diff != "" {
			t.Errorf("%s, the table below %q (-schema +table)\n%s", what, heading, diff)
		}
	}
}

// TestDocsLintCodes compares the reference's table of codes with the linter's.
func TestDocsLintCodes(t *testing.T) {
	var want []string
	for _, file := range parseSources(t, "lint.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 && strings.HasPrefix(v.Names[0].Name, "Lint") {
				want = append(want, literal(t, v.Values[0]))
			}
			return true
		})
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, firstColumn(t, readText(t, featuresFile), "## Lint")); diff != "" {
		t.Errorf("(-lint.go +table)\n%s", diff)
	}
}

// readerMaps are the functions whose maps of readers hold the fields that the
// decoder knows, with the schema's name of the object each reads.
var readerMaps = map[string]string{
	"document": "wrapped", "segments": "segment", "definition": "flag", "variants": "variant", "rules": "rule",
	"guard": "guard", "errorGuard": "error_guard", "responseMatches": "response_match", "latencyGuard": "latency_guard", "rollout": "rollout",
	"metadata": "metadata",
}

// TestSchemaFields compares the schema's properties with the fields that the
// decoder has readers for.
func TestSchemaFields(t *testing.T) {
	known := map[string][]string{}
	sources, err := filepath.Glob("decode*.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range parseSources(t, sources...) {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || strings.HasSuffix(name, "_test.go") {
				continue
			}
			if fields := fieldsRead(t, f); len(fields) > 0 {
				what, ok := readerMaps[f.Name.Name]
				if !ok {
					t.Errorf("%s: %s reads %q, and readerMaps does not say of what", name, f.Name.Name, fields)
				}
				known[what] = fields
			}
		}
	}
	for _, what := range readerMaps {
		properties := schemaProperties(t, what)
		slices.Sort(known[what])
		if diff := cmp.Diff(known[what], slices.Sorted(maps.Keys(properties))); diff != "" {
			t.Errorf("%s (-decoder +schema)\n%s", what, diff)
		}
	}
}

// fieldsRead returns the keys of the reader map in f. Metadata, where anything
// may stand, has a switch instead.
func fieldsRead(t *testing.T, f *ast.FuncDecl) (fields []string) {
	t.Helper()
	maps := 0
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			m, isMap := n.Type.(*ast.MapType)
			if !isMap {
				return true
			}
			if _, isReader := m.Value.(*ast.FuncType); !isReader {
				return true
			}
			maps++
			for _, e := range n.Elts {
				fields = append(fields, literal(t, e.(*ast.KeyValueExpr).Key))
			}
		case *ast.CaseClause:
			if f.Name.Name == "metadata" {
				for _, e := range n.List {
					fields = append(fields, literal(t, e))
				}
			}
		}
		return true
	})
	if maps > 1 {
		t.Errorf("%s has %d maps of readers, want one", f.Name.Name, maps)
	}
	return fields
}

// TestSchemaUnknownFields feeds the decoder an unknown field in every object,
// and wants the schema to be as strict as it is.
func TestSchemaUnknownFields(t *testing.T) {
	for what, text := range map[string]string{
		"wrapped":        `{"version": 1, %s}`,
		"segment":        `{"version": 1, "segments": {"s": {%s}}}`,
		"flag":           `{"f": {%s}}`,
		"variant":        `{"f": {"variants": {"on": {%s}}}}`,
		"rule":           `{"f": {"rules": [{%s}]}}`,
		"guard":          `{"f": {"guard": {%s}}}`,
		"error_guard":    `{"f": {"guard": {"errors": {%s}}}}`,
		"response_match": `{"f": {"guard": {"errors": {"match": [{%s}]}}}}`,
		"latency_guard":  `{"f": {"guard": {"latency": {%s}}}}`,
		"rollout":        `{"f": {"rollout": {%s}}}`,
		"metadata":       `{"f": {"metadata": {%s}}}`,
	} {
		refuses := func(field string) bool {
			_, err := Decode("test", fmt.Appendf(nil, text, strconv.Quote(field)+": 0"))
			return err != nil && strings.Contains(err.Error(), fmt.Sprintf("unknown field %q", field))
		}
		for name := range schemaProperties(t, what) {
			if refuses(name) {
				t.Errorf("%s: the decoder does not know %q", what, name)
			}
		}
		open := schemaDef(t, what).Additional == nil
		if got := refuses("nobody_knows"); got == open {
			t.Errorf("%s: the decoder refuses unknown fields: %t; the schema allows them: %t", what, got, open)
		}
	}
}

// TestSchemaDescriptions wants every property described, and every reference
// to lead somewhere.
func TestSchemaDescriptions(t *testing.T) {
	var whole struct {
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	text := readText(t, schemaFile)
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if name, found := strings.CutPrefix(m[1], "#/$defs/"); !found || whole.Defs[name] == nil {
			t.Errorf("$ref %q leads nowhere", m[1])
		}
	}
	for _, what := range readerMaps {
		for name, p := range schemaProperties(t, what) {
			if p.Description == "" && p.Ref == "" {
				t.Errorf("%s: %q has no description", what, name)
			}
		}
	}
	for name := range whole.Defs {
		if schemaDef(t, name).Description == "" {
			t.Errorf("$defs: %q has no description", name)
		}
	}
}

// TestSchemaPatterns compares what the schema and the decoder take for names,
// headers, dates and durations.
func TestSchemaPatterns(t *testing.T) {
	if got := schemaDef(t, "name").Pattern; got != namePattern.String() {
		t.Errorf("name: %s, want %s", got, namePattern)
	}
	if want, _ := json.Marshal(headerPattern.String()); !strings.Contains(strings.ReplaceAll(readText(t, schemaFile), "&", `\u0026`), string(want)) {
		t.Errorf("header: want the pattern %s", want)
	}
	f := func(what, value string) {
		t.Helper()
		matches := regexp.MustCompile(schemaDef(t, what).Pattern).MatchString(value)
		var d decoder
		n := &node{kind: stringNode, text: value}
		switch what {
		case "date":
			d.date(n, what)
		case "duration":
			d.duration(n, what, 0, 1<<62)
		case "fraction":
			d.fraction(n, what, 100)
		}
		if takes := len(d.errs) == 0; takes != matches {
			t.Errorf("%s %q: the decoder takes it: %t, the schema: %t", what, value, takes, matches)
		}
	}
	for _, s := range []string{"", "2026", "2026-01-31", "2026-01-31T12", "2026-01-31T12:00", "2026-01-31T12:00Z", "2026-01-31T12:00:00", "2026-01-31T12:00:00.5", "2026-01-31T12:00:00+02:00", "2026-01-31T12:00:00Z", "2026-01-31 12:00:00", "2026-01-31 12:00:00Z", "2026-01-31 12:00", "31.01.2026", "tomorrow"} {
		f("date", s)
	}
	for _, s := range []string{"", "0", "0s", "30s", "1m30s", "500ms", "1.5h", ".5h", "2d", "0.5d", "2d3h", "30", "1y", "1 m", "fast"} {
		f("duration", s)
	}
	for _, s := range []string{"", "%", "0.05%", "10%", "10 %", "0.1", "a%", "-1%"} {
		f("fraction", s)
	}
}

// schema is the part of a JSON Schema that these tests look at.
type schema struct {
	Description string            `json:"description"`
	Ref         string            `json:"$ref"`
	Pattern     string            `json:"pattern"`
	Properties  map[string]schema `json:"properties"`
	Additional  json.RawMessage   `json:"additionalProperties"`
}

func schemaDef(t *testing.T, name string) schema {
	t.Helper()
	var whole struct {
		Defs map[string]schema `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(readText(t, schemaFile)), &whole); err != nil {
		t.Fatal(err)
	}
	s, ok := whole.Defs[name]
	if !ok {
		t.Fatalf("the schema has no $defs/%s", name)
	}
	return s
}

func schemaProperties(t *testing.T, name string) map[string]schema {
	t.Helper()
	p := schemaDef(t, name).Properties
	if len(p) == 0 {
		t.Fatalf("the schema's %s has no properties", name)
	}
	return p
}

// firstColumn returns the names in the first table from heading on, sorted.
func firstColumn(t *testing.T, text, heading string) (names []string) {
	t.Helper()
	_, after, found := strings.Cut(text, "\n"+heading)
	if !found {
		t.Fatalf("no %q", heading)
	}
	for line := range strings.Lines(after) {
		if m := regexp.MustCompile("^\\| `([^`]+)` \\|").FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		} else if len(names) > 0 {
			break
		}
	}
	slices.Sort(names)
	return names
}

func parseSources(t *testing.T, names ...string) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	l, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("want a literal, got %T", e)
	}
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
