// Package monitors turns outcomes of exposed requests into verdicts: it counts
// them by variant, trips a flag by its founding thresholds (errors, slow requests,
// traffic), and compares its canary with its control by a sequential test with a
// bound on false alarms ([Guard]).
//
// It knows neither Caddy nor HTTP. The request path only adds to atomic counters
// and marks records; whatever has to wait for time to pass happens in [Flag.Tick]
// and [Guard.Tick]. Time comes in as an argument everywhere.
package monitors
