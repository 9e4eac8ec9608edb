// Package server runs the programs that the tests of this module talk to: it finds them, gives each
// a free port and a directory, waits for them, kills and freezes them, and leaves nothing behind.
// Begin with [Program] and [New]. It knows no program: what to start, and how, is said by the tests.
package server
