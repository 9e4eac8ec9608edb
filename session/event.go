package session

import (
	"fmt"
	"time"
)

// Event is something out of the ordinary that happened to a session.
type Event struct {
	// Time is when.
	Time time.Time
	// Kind is what.
	Kind EventKind
	// From and To are identities of endpoints: where a session belonged, empty if no such endpoint is
	// known any more, and where it belongs now.
	From, To string
	// Cause says why, in a few words: "removed", "open", "ejected", "attempt failed" and the
	// like for [Moved], "expired" and the like for [Rejected].
	Cause string
	// Err is what the store failed with, or with what the call was refused.
	Err error
}

// EventKind is the kind of an [Event].
type EventKind uint8

// The kinds of events.
const (
	// Moved: a session belongs to another endpoint from now on, which has served it. Of sessions in a store
	// ([Key]) the first call decides before it is sent, and that is told: if it fails, they may move again.
	Moved EventKind = iota
	// Rejected: a request had a cookie that is not valid, which was ignored.
	Rejected
	// Refused: a call failed, in strict mode, because its endpoint cannot take it.
	Refused
	// StoreFailed: the store could not be asked, and calls go on without it. It is told once,
	// and not again before the store has answered.
	StoreFailed
	// StoreRecovered: the store answers again.
	StoreRecovered
)

// String names the kind.
func (k EventKind) String() string {
	names := [...]string{"moved", "rejected", "refused", "store failed", "store recovered"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}
