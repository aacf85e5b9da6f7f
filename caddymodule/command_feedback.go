package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

func runFeedback(c *cobra.Command, args []string) error {
	limit, _ := c.Flags().GetInt("limit")
	var v feedbackView
	raw, err := api(c, http.MethodGet, "feedback/"+url.PathEscape(args[0])+"?limit="+strconv.Itoa(limit), nil, &v)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printRaw(raw)
	}
	if v.Total == 0 {
		fmt.Printf("%s: nobody has said anything\n", v.Flag)
		return nil
	}
	t := newTable("VARIANT", "RATINGS", "GOOD", "BAD", "MEAN", "1", "2", "3", "4", "5", "DOWN", "UP")
	for _, name := range slices.Sorted(maps.Keys(v.Variants)) {
		o := v.Variants[name]
		mean, all := "-", 0
		if o.Mean != nil {
			mean = fmt.Sprintf("%.1f", *o.Mean)
		}
		row := []string{}
		for _, r := range monitors.Ratings {
			all += o.Ratings[r]
			row = append(row, strconv.Itoa(o.Ratings[r]))
		}
		t.row(append([]string{name, strconv.Itoa(all), strconv.Itoa(o.Good), strconv.Itoa(o.Bad), mean}, row...)...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if v.Worse {
		fmt.Printf("\nPeople like the canary clearly less than the control.%s\n", map[bool]string{true: " That holds its rollout.", false: ""}[v.Holds])
	}
	fmt.Println()
	t = newTable("TIME", "VARIANT", "RATING", "COMMENT")
	for _, f := range v.Feedback {
		t.row(f.At.Local().Format(time.DateTime), f.Variant, f.Rating, f.Comment)
	}
	return t.flush()
}
