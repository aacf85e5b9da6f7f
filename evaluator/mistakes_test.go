package evaluator

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMistakes compares what is said about each bad document with the text
// beside it.
func TestMistakes(t *testing.T) {
	for _, path := range mistakes(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text := read(t, path)
			doc, _ := Decode(filepath.Base(path), text)
			_, err := Compile(doc)
			if err == nil {
				t.Fatal("compiles, want a mistake")
			}
			checkPositions(t, text, err.(Errors))
			golden := path + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(read(t, golden)), err.Error()+"\n"); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func mistakes(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"testdata/mistakes/*.json", "testdata/mistakes/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %d files", pattern, err, len(found))
		}
		paths = append(paths, found...)
	}
	return paths
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// checkPositions checks that each mistake's place is in the document, or at
// its end.
func checkPositions(t testing.TB, text []byte, errs Errors) {
	t.Helper()
	lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
	for _, e := range errs {
		if e.Pos == (Position{}) {
			continue
		}
		if e.Pos.Line < 1 || e.Pos.Line > len(lines) {
			t.Fatalf("%v: line %d of %d", e, e.Pos.Line, len(lines))
		}
		if most := len([]rune(lines[e.Pos.Line-1])) + 1; e.Pos.Column < 1 || e.Pos.Column > most {
			t.Fatalf("%v: column %d of %d", e, e.Pos.Column, most)
		}
	}
}

// TestEveryMistakeHasAGolden finds the texts of errors in the sources and
// looks for each of them in the golden files.
func TestEveryMistakeHasAGolden(t *testing.T) {
	var golden strings.Builder
	for _, path := range mistakes(t) {
		golden.Write(read(t, path+".txt"))
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := 0
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		for _, format := range errorTexts(t, source) {
			texts++
			if !formatPattern(format).MatchString(golden.String()) {
				t.Errorf("%s: no golden file shows %q", source, format)
			}
		}
	}
	if texts < 90 {
		t.Errorf("%d texts found, want all", texts)
	}
}

// errorTexts returns the formats that a file hands to errorf, segmentErrorf
// and fail.
func errorTexts(t *testing.T, source string) (formats []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name := ""
		switch f := call.Fun.(type) {
		case *ast.Ident:
			name = f.Name
		case *ast.SelectorExpr:
			name = f.Sel.Name
		}
		if name != "errorf" && name != "segmentErrorf" && name != "fail" {
			return true
		}
		for _, arg := range call.Args {
			if literal, ok := arg.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if format, err := strconv.Unquote(literal.Value); err == nil {
					formats = append(formats, format)
				}
				break
			}
		}
		return true
	})
	return formats
}

var verb = regexp.MustCompile(`%(?:\\\[\d+\\\])?[-+#0-9.]*[a-z]`)

func formatPattern(format string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(strings.ReplaceAll(format, "%%", "\x00"))
	pattern = verb.ReplaceAllString(pattern, ".*")
	return regexp.MustCompile("(?m)" + strings.ReplaceAll(pattern, "\x00", "%") + "$")
}
