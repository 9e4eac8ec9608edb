package retry

import (
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Policy says how often, how fast and at whose cost attempts are repeated. The
// zero Policy is the recommended one.
type Policy struct {
	// MaxAttempts is how many attempts a call makes in all, the first
	// included. Zero means 3, 1 means no retry, negative is an error. Moves
	// to another endpoint after a refused connection come on top, at most
	// two per call.
	MaxAttempts int

	// PerAttemptTimeout bounds the time from sending an attempt to its
	// response's headers; the body may take longer. Zero means no bound
	// besides the caller's; negative is an error. Upgrades such as WebSocket
	// are not bounded.
	PerAttemptTimeout time.Duration

	// Backoff is the wait before an endpoint is tried again. Moving on to an
	// endpoint that the call has not tried takes no wait.
	Backoff Backoff

	// Quota bounds the retries of all calls together.
	Quota Quota

	// Classifier says what an attempt meant; nil means [outcome.Classify].
	// Inside evenkeel.New it is set there, for all policies.
	Classifier outcome.Classifier

	// Clock is the clock to use; nil means the system's. Inside evenkeel.New
	// it is set there.
	Clock clock.Clock

	// Rand is the source of the jitter; nil means the runtime's. Access is
	// serialised. Inside evenkeel.New it is set there.
	Rand rand.Source

	// Hooks are told what happens. Inside evenkeel.New they are set there.
	Hooks Hooks
}

// Hooks observe retries. They are called by the goroutine of the call, so they
// run concurrently and must be fast; no lock is held.
type Hooks struct {
	// Decided is told of each decision after an attempt.
	Decided func(Decision)
}

// Decision is an event: what follows after an attempt.
type Decision struct {
	// Attempt is the number of the attempt, counted from 1.
	Attempt int
	// Endpoint is the address it went to, empty if unknown.
	Endpoint string
	// Outcome is what it meant.
	Outcome outcome.Outcome
	// Err is why it failed, nil if there was a response.
	Err error
	// Action is what follows.
	Action Action
}

const (
	defaultMaxAttempts = 3
	// maxFreeMoves bounds the moves to another endpoint that cost nothing.
	maxFreeMoves = 2
)

// WithDefaults returns the policy as it is applied, with every default filled
// in. Behaviour fields are left as they are.
func (p Policy) WithDefaults() Policy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = defaultMaxAttempts
	}
	p.Backoff = p.Backoff.withDefaults()
	p.Quota = p.Quota.withDefaults()
	return p
}

// Validate returns nil, or all that is wrong with the policy.
func (p Policy) Validate() error {
	var errs field.Errors
	errs.Check(p.MaxAttempts >= 0, "MaxAttempts", p.MaxAttempts, "must not be negative")
	errs.Check(p.PerAttemptTimeout >= 0, "PerAttemptTimeout", p.PerAttemptTimeout, "must not be negative")
	errs.Under("Backoff", p.Backoff.validate())
	errs.Under("Quota", p.Quota.validate())
	return errs.Err()
}
