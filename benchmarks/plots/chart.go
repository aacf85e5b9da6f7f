package main

import "math"

// chart is a part of a picture with two axes.
type chart struct {
	*svg
	left, top, right, bottom float64 // of the area between the axes
	x, y                     axis
}

// axis maps values to places.
type axis struct {
	from, to float64
	log      bool
	ticks    []tick
	name     string
}

type tick struct {
	at   float64
	name string
}

func (a *axis) part(v float64) float64 {
	if a.log {
		return math.Log(v/a.from) / math.Log(a.to/a.from)
	}
	return (v - a.from) / (a.to - a.from)
}

func (c *chart) px(v float64) float64 { return c.left + c.x.part(v)*(c.right-c.left) }
func (c *chart) py(v float64) float64 { return c.bottom - c.y.part(v)*(c.bottom-c.top) }

// axes draws the grid, the ticks and the names.
func (c *chart) axes() {
	longest := 0
	for _, t := range c.y.ticks {
		longest = max(longest, len([]rune(t.name)))
		c.line(c.left, c.py(t.at), c.right, c.py(t.at), rule, 1, "")
		c.words(c.left-8, c.py(t.at)+4, "end", 12, pale, t.name)
	}
	for _, t := range c.x.ticks {
		c.line(c.px(t.at), c.bottom, c.px(t.at), c.bottom+5, pale, 1, "")
		c.words(c.px(t.at), c.bottom+19, "middle", 12, pale, t.name)
	}
	c.line(c.left, c.bottom, c.right, c.bottom, pale, 1, "")
	if c.x.name != "" {
		c.words((c.left+c.right)/2, c.bottom+38, "middle", 12, ink, c.x.name)
	}
	c.upright(c.left-22-7*float64(longest), (c.top+c.bottom)/2, ink, c.y.name)
}

// curve draws a line through points, as far as they are within the axes.
func (c *chart) curve(points [][2]float64, colour string, dots bool) {
	var places [][2]float64
	for _, p := range points {
		if p[0] < c.x.from || p[0] > c.x.to {
			continue
		}
		at := [2]float64{c.px(p[0]), c.py(min(max(p[1], c.y.from), c.y.to))}
		places = append(places, at)
		if dots {
			c.dot(at[0], at[1], 3.5, colour)
		}
	}
	c.path(places, colour, 2)
}
