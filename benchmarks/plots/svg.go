package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// svg is a picture in the making. Its ground is white, whatever the page's is.
type svg struct {
	b             strings.Builder
	width, height float64
}

const (
	ink    = "#222222"
	pale   = "#6b6b6b" // of what is not the matter itself
	rule   = "#dddddd" // of lines that help to read
	blue   = "#0072b2" // these four are told apart by nearly all: Okabe and Ito
	orange = "#d55e00"
	green  = "#009e73"
	violet = "#aa4499"
)

// newSVG begins a picture; says is for those who do not see it.
func newSVG(width, height float64, title, says string) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(&s.b, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %g %g" role="img" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&s.b, "<title>%s</title>\n<desc>%s</desc>\n", html.EscapeString(title), html.EscapeString(says))
	fmt.Fprintf(&s.b, `<rect width="%g" height="%g" rx="6" fill="#ffffff"/>`+"\n", width, height)
	s.words(16, 22, "start", 14, ink, title)
	return s
}

func (s *svg) text() string { return s.b.String() + "</svg>\n" }

// number writes a length to a tenth.
func number(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// words writes text; anchor is start, middle or end.
func (s *svg) words(x, y float64, anchor string, size int, colour, text string) {
	fmt.Fprintf(&s.b, `<text x="%s" y="%s" text-anchor="%s" font-size="%d" fill="%s">%s</text>`+"\n",
		number(x), number(y), anchor, size, colour, html.EscapeString(text))
}

// upright writes text that reads from bottom to top, around a point.
func (s *svg) upright(x, y float64, colour, text string) {
	fmt.Fprintf(&s.b, `<text transform="translate(%s %s) rotate(-90)" text-anchor="middle" fill="%s">%s</text>`+"\n",
		number(x), number(y), colour, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64, colour string, width float64, dash string) {
	fmt.Fprintf(&s.b, `<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s" stroke-width="%g"`, number(x1), number(y1), number(x2), number(y2), colour, width)
	if dash != "" {
		fmt.Fprintf(&s.b, ` stroke-dasharray="%s"`, dash)
	}
	s.b.WriteString("/>\n")
}

func (s *svg) path(points [][2]float64, colour string, width float64) {
	var at []string
	for _, p := range points {
		at = append(at, number(p[0])+","+number(p[1]))
	}
	fmt.Fprintf(&s.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%g" stroke-linejoin="round"/>`+"\n", strings.Join(at, " "), colour, width)
}

func (s *svg) box(x, y, width, height float64, fill string) {
	fmt.Fprintf(&s.b, `<rect x="%s" y="%s" width="%s" height="%s" fill="%s"/>`+"\n", number(x), number(y), number(width), number(height), fill)
}

func (s *svg) dot(x, y, radius float64, fill string) {
	fmt.Fprintf(&s.b, `<circle cx="%s" cy="%s" r="%g" fill="%s"/>`+"\n", number(x), number(y), radius, fill)
}

// key is one entry of a legend.
type key struct{ colour, name string }

// legend writes what the colours mean in a line from x on.
func (s *svg) legend(x, y float64, keys ...key) {
	for _, k := range keys {
		s.line(x, y-4, x+18, y-4, k.colour, 3, "")
		s.words(x+24, y, "start", 12, ink, k.name)
		x += 24 + 6.6*float64(len([]rune(k.name))) + 18
	}
}
