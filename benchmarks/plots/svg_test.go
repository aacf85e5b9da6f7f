package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

// The quick pictures are well-formed, say what they are, and have a place for
// everything.
func TestPictures(t *testing.T) {
	for _, draw := range []func() *svg{evidence, outage} {
		text := draw().text()
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"<title>", "<desc>", "<polyline"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s", want)
			}
		}
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Error("something has no place")
		}
		if text != draw().text() {
			t.Error("the picture is another one the second time")
		}
	}
}

func TestOnly(t *testing.T) {
	if err := run(t.TempDir(), "evidence,nothing"); err == nil || err.Error() != `-only: no picture "nothing"` {
		t.Errorf("got %v", err)
	}
}
