// Package clock is the time that evenkeel's policies live by.
//
// A policy never calls the time package itself: it asks a [Clock] for the
// present instant and for callbacks later. In production that is [System].
// In a test it is a [Fake], which moves only when the test says so, or System
// inside a testing/synctest bubble; in a simulation it is the simulator's own.
//
// The interface has two methods because no more are needed. Sleeping, deadlines
// and periodic work are built from them, inside the packages that need them.
package clock
