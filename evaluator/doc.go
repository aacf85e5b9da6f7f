// Package evaluator decides feature flags: it decodes and checks definitions,
// compiles them to an immutable [Ruleset], evaluates a [Context] against it,
// explains a decision and lints a document.
//
// It knows neither Caddy nor HTTP. The words are OpenFeature's: flag, variant,
// evaluation context, targeting key, attribute, reason, error code.
//
// The way of a definition is [Decode] (text to [Document], every mistake at
// once with its position), [Compile] (document to [Program], the expensive
// part: CEL) and [Program.With] (program and run-time state to [Ruleset], cheap
// enough to run at every trip). Programs and rulesets are immutable and safe
// for concurrent use.
package evaluator
