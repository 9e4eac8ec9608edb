package discovery

import (
	"fmt"
	"time"
)

// EventKind is what happened to a set of endpoints that [LastGood] keeps.
type EventKind uint8

// The kinds. Each answer of the source ends in exactly one of the first four.
const (
	// Updated: the source answered, and the set changed.
	Updated EventKind = iota + 1
	// Unchanged: the source answered with the set that is in use, perhaps in
	// another order.
	Unchanged
	// Held: the source says that there are no endpoints. The set stays until
	// the grace time is over. It happens for each such answer.
	Held
	// Emptied: the source says that there are no endpoints, and there are none
	// any more. It also happens without a new answer, when the grace time ends.
	Emptied
	// Failed: the source could not be asked, made no sense, or its watch
	// broke. The set stays. Err says why.
	Failed
	// Skipped: entries of an answer were left out, or a part of the source
	// could not be asked. Err says which. The outcome of the answer follows.
	Skipped
	// Dropped: an answer took more than the expected share of the endpoints
	// away at once. It is used nevertheless, and Updated follows.
	Dropped
)

var kindNames = [...]string{"", "updated", "unchanged", "held", "emptied", "failed", "skipped", "dropped"}

// String returns the name in lower case.
func (k EventKind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Event is something that [LastGood] saw or did.
type Event struct {
	// Kind is what happened.
	Kind EventKind
	// Time is when, on the clock of the sink.
	Time time.Time
	// Answered is when the source last answered; zero means never. Time less
	// Answered is the age of what is known.
	Answered time.Time
	// Size is how many endpoints are in use from now on, and Before how many
	// were in use before.
	Size, Before int
	// Skipped is how many entries were left out. It is set with Skipped.
	Skipped int
	// Err is why. It is set with Failed and Skipped.
	Err error
}
