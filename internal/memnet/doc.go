// Package memnet is a network inside the process, for tests: listeners and
// stream connections without sockets, whose failures are ordered by the test.
//
// Every wait is on a condition variable or a channel of the [Network] itself
// and every delay is a timer of the time package, so that a network which is
// made inside a testing/synctest bubble blocks durably and follows the bubble's
// time. There is no state outside the Network.
//
// It imitates TCP as far as an HTTP client can tell the difference: a refused
// dial, a dial that hangs, a connection that is reset, closed or silent, bytes
// that wait in a bounded buffer, errors of the same types. It does not imitate
// segments, loss, or the bytes that a real kernel takes with it in a reset.
package memnet
