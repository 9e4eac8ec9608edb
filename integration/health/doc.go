// Package health tests the handler of package health in front of real servers, Redis and
// PostgreSQL, which are stopped, started and frozen while it is asked. It has no code besides
// its tests.
package health
