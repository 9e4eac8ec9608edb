// Package bench compares evenkeel with what its users would use in its place. It
// is a module of its own, so that the libraries it compares with are nobody's
// dependencies.
//
// Every benchmark measures all rows in one run, next to the bare transport: on a
// shared machine only the ratios mean something. Run it with make bench.
package bench
