package breaker

import "time"

// Change is an event: a breaker has gone from one state to another.
type Change struct {
	// Name is the breaker's.
	Name string
	// From and To are the states. The next change of the same breaker begins where
	// this one ends.
	From, To State
	// Reason is why.
	Reason Reason
	// Mode is the breaker's. In MetricsOnly the change is what would have been.
	Mode Mode
	// Counts are what was counted in the state that it left.
	Counts Counts
	// At is when it happened. If nobody asked the breaker then, the event is told
	// later.
	At time.Time
	// Until is when probes are let through, if it has opened and was not forced to.
	Until time.Time
}

// Reason is why a breaker changed its state.
type Reason string

// The reasons.
const (
	// Created: it was made so.
	Created Reason = "created"
	// ConsecutiveFailures: too many calls in a row have failed.
	ConsecutiveFailures Reason = "consecutive_failures"
	// FailureRate: too large a part of the calls has failed.
	FailureRate Reason = "failure_rate"
	// SlowRate: too large a part of the calls was slow.
	SlowRate Reason = "slow_rate"
	// Predicate: Config.TripIf said so.
	Predicate Reason = "predicate"
	// OpenTimeOver: it is time for probes.
	OpenTimeOver Reason = "open_time_over"
	// ProbesSucceeded: enough probes were good.
	ProbesSucceeded Reason = "probes_succeeded"
	// ProbeFailed: too many probes have failed.
	ProbeFailed Reason = "probe_failed"
	// ProbeTimedOut: the last of them because it hung.
	ProbeTimedOut Reason = "probe_timed_out"
	// ModeSet: another mode was set.
	ModeSet Reason = "mode_set"
	// WasReset: Reset was called.
	WasReset Reason = "reset"
)
