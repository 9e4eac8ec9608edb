package health

import (
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// Change is an event: what is known of an endpoint's health has changed.
type Change struct {
	// Time is when.
	Time time.Time
	// Endpoint is whose health it is.
	Endpoint discovery.Endpoint
	// Kind is what has changed.
	Kind Kind
	// Err is what the latest probe has found, nil if that was good or the change is none of the
	// probes'.
	Err error
	// Cause is why the endpoint was ejected, also when it returns.
	Cause Cause
	// Until is when the ejection ends.
	Until time.Time
	// Shadow says that the endpoint goes on being used: see Outlier.Shadow and Outlier.Enforce.
	Shadow bool
}

// Kind is what has changed.
type Kind uint8

// The kinds.
const (
	// TurnedHealthy: probes say that the endpoint can serve.
	TurnedHealthy Kind = iota + 1
	// TurnedUnhealthy: probes say that it cannot.
	TurnedUnhealthy
	// TurnedAway: it answers probes that it is about to leave.
	TurnedAway
	// Eject: its answers are worse than they should be.
	Eject
	// Return: its ejection is over.
	Return
	// TurnedUnknown: it is not probed any more, and serves.
	TurnedUnknown
)

var kindNames = [...]string{"invalid", "healthy", "unhealthy", "withdrawn", "eject", "return", "unknown"}

// String returns the name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Cause is why an endpoint was ejected.
type Cause string

// The causes, each named after the setting of [Outlier].
const (
	ConsecutiveFailures Cause = "consecutive failures"
	GatewayFailures     Cause = "gateway failures"
	LocalFailures       Cause = "local failures"
	FailureRate         Cause = "failure rate"
	Deviation           Cause = "deviation"
	SlowerBy            Cause = "slower"
)
