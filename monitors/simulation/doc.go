// Package simulation plays traffic through a guard offline: traces of what has
// happened, and scenarios of bad canaries and good ones.
package simulation
