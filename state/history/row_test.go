package history

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func ptr(f float64) *float64 { return &f }

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name          string
		a, b          *float64
		aStatus       string
		bStatus       string
		logE          *float64
		status        string
		aTrip, bTrip  float64
		aShare        float64
		bShare, share float64
	}{
		{name: "no evidence", status: "on", aStatus: "split", bStatus: "on"},
		{name: "first evidence", b: ptr(-3), logE: ptr(-3), aStatus: "on", bStatus: "on", status: "on"},
		{name: "evidence ends", a: ptr(2), logE: ptr(2)},
		{name: "the greatest", a: ptr(2), b: ptr(1), logE: ptr(2), aShare: 5, bShare: 10, share: 10},
		{name: "greater", a: ptr(-2), b: ptr(-1), logE: ptr(-1), aTrip: 9, bTrip: 6},
		{name: "tripped before", aStatus: Tripped, bStatus: "on", status: Tripped, aShare: 5},
		{name: "tripped later", aStatus: "split", bStatus: Tripped, status: Tripped},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := row("a", 1), row("a", 2)
			a.LogE, b.LogE, a.Status, b.Status = c.a, c.b, c.aStatus, c.bStatus
			a.TripAt, b.TripAt, a.Percentage, b.Percentage = c.aTrip, c.bTrip, c.aShare, c.bShare
			a.merge(b)
			want := row("a", 3)
			want.LogE, want.Status, want.TripAt, want.Percentage = c.logE, c.status, c.bTrip, c.share
			if !reflect.DeepEqual(a, want) {
				t.Errorf("got  %+v\nwant %+v", a, want)
			}
		})
	}
}

func TestTidy(t *testing.T) {
	rows := []Row{
		{Flag: "z", LogE: ptr(math.NaN()), TripAt: math.Inf(1), Percentage: math.NaN()},
		{Flag: "b", LogE: ptr(math.Inf(-1)), TripAt: 6.9077553, Percentage: 33.3333, Status: strings.Repeat("é", 40)},
		{Flag: strings.Repeat("x", maxName+1)},
		row("a", 1), row("c", 5), row("a", 7), row("d", 2),
	}
	got, dropped := tidy(rows, 10)
	want := []Row{
		row("a", 8),
		{Flag: "b", LogE: ptr(-1e6), TripAt: 6.908, Percentage: 33.333, Status: strings.Repeat("é", 16)},
		row("c", 5), row("d", 2),
		{Flag: "z", TripAt: 1e6},
	}
	if dropped != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("dropped %d\ngot  %+v\nwant %+v", dropped, got, want)
	}
	got, dropped = tidy(rows, 2)
	if dropped != 4 || fmt.Sprint(got[0].Flag, got[1].Flag) != "ac" {
		t.Errorf("the busiest of them: %+v, dropped %d", got, dropped)
	}
	if rows[3].Canary.Requests != 1 || !math.IsNaN(*rows[0].LogE) {
		t.Error("the caller's rows were changed")
	}
}
