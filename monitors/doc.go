// Package monitors turns outcomes of exposed requests into verdicts: it counts
// them by variant, and trips a flag by its founding thresholds (errors, slow
// requests, traffic).
//
// It knows neither Caddy nor HTTP. The request path only adds to atomic
// counters; whatever has to wait for time to pass happens in [Flag.Tick]. Time
// comes in as an argument everywhere.
package monitors
