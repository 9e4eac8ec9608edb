// Package node is the live side of an endpoint: how many requests it has, why
// it may not be used, what is being learnt about it. The pool of package
// balancer owns the nodes; policies that find out that an endpoint is broken
// push that into its node and need not know the pool.
package node

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Reasons is the set of causes for which an endpoint gets no new traffic. It is
// available when the set is empty.
type Reasons uint32

// The causes.
const (
	// Removed: the endpoint left the service. It never comes back; the same
	// identity seen again is a new node.
	Removed Reasons = 1 << iota
	// Draining: the endpoint is about to leave.
	Draining
	// Marked: the user says that it is not healthy.
	Marked
	// Unhealthy: probes say that it cannot serve.
	Unhealthy
	// Withdrawn: it answers probes that it is about to leave.
	Withdrawn
	// Pending: it is new, and the first probe of it is awaited.
	Pending
	// Ejected: its answers are worse than those of the others.
	Ejected
	// Open: its circuit breaker is open, or has all its probes under way.
	Open
	// ForcedOpen: somebody has opened its circuit breaker.
	ForcedOpen
	// Parked: it has asked to be left alone for a while.
	Parked

	// Leaving is the causes that nothing overrules. The others are opinions
	// about the endpoint's health, which panic mode ignores.
	Leaving = Removed | Draining | ForcedOpen
	// Waiting is the causes that panic mode ignores only where nobody is available: they are no
	// opinions, but what the endpoint has said itself, or what nobody can know yet.
	Waiting = Parked | Withdrawn | Pending
)

var causeNames = [...]string{
	"removed", "draining", "marked unhealthy", "unhealthy", "withdrawn", "pending", "ejected", "open", "forced open", "parked",
}

// String names the causes, or returns "available".
func (r Reasons) String() string {
	s := ""
	for i, name := range causeNames {
		if r&(1<<i) == 0 {
			continue
		}
		if s != "" {
			s += ","
		}
		s += name
	}
	if s == "" {
		return "available"
	}
	return s
}

// Base sends the attempts of one endpoint over connections of its own.
type Base interface {
	http.RoundTripper
	// CloseIdleConnections closes the connections that nobody uses.
	CloseIdleConnections()
	// DropIdle lets go of what was not used since the last call.
	DropIdle()
	// Close closes all connections, used or not, and refuses new ones.
	Close()
}

// Sessions keeps callers at their endpoints. It is told which there are, whenever that changes and
// before anybody can be sent to a new one. A lock of the owner may be held.
type Sessions interface {
	// Attach tells how to wait for the first endpoints. It fails if they have another owner already.
	Attach(ready func(context.Context) error) error
	Endpoints(all []discovery.Endpoint)
}

// Pin is where an attempt belongs.
type Pin struct {
	// ID is the identity of the endpoint.
	ID string
	// Strict says that no other will do.
	Strict bool
	// DrainFor is how long the endpoint counts after it has begun to drain; 0 is for as long
	// as it is there.
	DrainFor time.Duration
}

// ErrPinned is the cause of a refusal because of a strict [Pin].
var ErrPinned = errors.New("the endpoint to which the session belongs cannot take it")

// Observer learns from the attempts at one endpoint. Its methods are called
// concurrently and must not block, allocate or panic.
type Observer interface {
	// Picked tells that the endpoint was picked for an attempt at the
	// instant now. What it returns comes back with the answer.
	Picked(now time.Time) (token uint32)
	// Answered tells how the attempt went. It is called exactly once for
	// each Picked.
	Answered(token uint32, a outcome.Answer)
}

// Watcher is the owner of a node.
type Watcher interface {
	// Changed is told that the reasons have changed, by whoever changed them, and those of
	// others, of the same owner.
	Changed(others ...*Node)
	// Ended is told of the end of each pick that is counted, and of each at a
	// node that has a limit.
	Ended(counted bool)
	// Others reports whether there is a node for a request that is neither this one nor one of
	// those tried.
	Others(tried []uint64, req *http.Request) bool
	// Overloaded is told of an answer of [outcome.Overload].
	Overloaded(a outcome.Answer)
}

// Gate decides whether an attempt may go to a node that was picked: a circuit breaker.
// It is safe for concurrent use.
type Gate interface {
	// Acquire asks for an attempt at the instant now, zero if that is not known. One
	// that must pass, because health is ignored, is refused only for a reason that
	// nothing overrules. Whoever is refused finds the reason in the node, now or in a
	// moment. It calls nobody back.
	Acquire(now time.Time, must bool) Admission
	// Refusal returns the error of those who are refused at present, nil if nobody is,
	// and when the node is tried again, zero if that is not known.
	Refusal() (until time.Time, err error)
	// Gone tells that the node was removed.
	Gone()
}

// Admission is what a gate answers.
type Admission struct {
	// OK says that the attempt may go.
	OK bool
	// Changed says that the reasons of the node may have changed, and that there are
	// events, which whoever asked must see to: see Gatekeeper.Tell.
	Changed bool
	// Number is handed to the pass.
	Number int32
	// Pass is told of the attempt. It is nil if nobody wants to know.
	Pass Pass
}

// Pass is what a gate let pass.
type Pass interface {
	// Answered tells how the attempt went. It is called exactly once. It reports whether
	// it wants to know how the body ends.
	Answered(number int32, a outcome.Answer) (watch bool)
	// Whole tells that the body of a good answer has ended as it should.
	Whole()
	// Broke tells that an answer that was good has failed after all: its body broke.
	Broke(a outcome.Answer)
}

// Gatekeeper makes the gates of nodes.
type Gatekeeper interface {
	Gate(n *Node) Gate
	// Tell calls back with the events of the gates that were not told yet.
	Tell()
}

// Monitor watches the health of a node: it learns from its attempts, and marks it. Its methods are
// called concurrently and must not block or panic.
type Monitor interface {
	// Answered tells how an attempt went.
	Answered(a outcome.Answer)
	// Whole tells that the body of a good answer has ended as it should.
	Whole()
	// Broke tells that an answer that was good has failed after all: its body broke.
	Broke(a outcome.Answer)
	// Gone tells that the node was removed.
	Gone()
}

// Monitors makes the monitors of nodes.
type Monitors interface {
	// Attach tells for whose endpoints the monitors will be. It fails if they are for others.
	Attach(Ways) error
	Monitor(n *Node) Monitor
	// Settle tells that an update of the nodes is over, and makes the reasons of others what
	// follows from it. It reports whether some have changed; nobody is told otherwise. A lock of
	// the owner may be held.
	Settle() (changed bool)
}

// Ways are how connections to the endpoints of a pool are made, for those who make their own.
type Ways struct {
	// Template is the transport that those of the endpoints are clones of. It must be cloned
	// and not used.
	Template *http.Transport
	// Custom, if set, makes the transport of an endpoint in place of the template.
	Custom func(discovery.Endpoint) http.RoundTripper
}

// Node is the state of one incarnation of an endpoint. It is safe for
// concurrent use.
type Node struct {
	// load is the in-flight count, the number of picks and the mark of removal
	// in one word, so that a pick costs one atomic operation and its end
	// another:
	//
	//	bits 25-63  picks so far, of which the upper ones fall off in the end
	//	bit 24      removed
	//	bits 0-23   in flight
	load    atomic.Uint64
	reasons atomic.Uint32 // all but Removed
	limit   atomic.Uint32 // on attempts in flight; 0 is none
	serial  uint64
	base    Base
	watcher Watcher // may be nil
	gate    Gate    // may be nil
	monitor Monitor // may be nil

	failures atomic.Uint64
	endpoint atomic.Pointer[discovery.Endpoint]
	recent   atomic.Uint64 // see NoteRecent: the tick in the upper half, the count in the lower

	_ [16]byte // makes it 128 bytes, so that no two nodes share a cache line
}

const (
	onePick      = 1 << 25
	removedBit   = 1 << 24
	inFlightMask = removedBit - 1
)

// New returns a node without any load. The serial must be unique in its pool.
func New(e discovery.Endpoint, serial uint64, base Base, w Watcher) *Node {
	n := &Node{serial: serial, base: base, watcher: w}
	n.endpoint.Store(&e)
	return n
}

// Guard sets the gate. Nobody else may have the node yet.
func (n *Node) Guard(g Gate) { n.gate = g }

// Watch sets the monitor. Nobody else may have the node yet.
func (n *Node) Watch(m Monitor) { n.monitor = m }

// Gate returns what decides whether an attempt may go to the node, nil if nothing does.
func (n *Node) Gate() Gate { return n.gate }

// Endpoint returns what discovery said last.
func (n *Node) Endpoint() discovery.Endpoint { return *n.endpoint.Load() }

// Published returns the same without copying it. It must not be changed.
func (n *Node) Published() *discovery.Endpoint { return n.endpoint.Load() }

// Name returns the address of the endpoint, with its ID in parentheses if it has one.
func (n *Node) Name() string {
	e := n.Published()
	if e.ID == "" || e.ID == e.Address {
		return e.Address
	}
	return e.Address + " (" + e.ID + ")"
}

// Update takes what discovery says now. The key must be the same. The watcher is
// not told.
func (n *Node) Update(e discovery.Endpoint) {
	n.endpoint.Store(&e)
	if e.Draining {
		n.reasons.Or(uint32(Draining))
	} else {
		n.reasons.And(^uint32(Draining))
	}
}

// Mark adds a reason why the endpoint is not available.
func (n *Node) Mark(r Reasons) {
	if n.Set(r, r) {
		n.Changed()
	}
}

// Clear takes a reason away.
func (n *Node) Clear(r Reasons) {
	if n.Set(r, 0) {
		n.Changed()
	}
}

// Set makes the reasons of a mask those that are given. It tells nobody, and reports
// whether there is something to tell.
func (n *Node) Set(mask, r Reasons) (changed bool) {
	for {
		old := n.reasons.Load()
		next := old&^uint32(mask) | uint32(r)
		if n.reasons.CompareAndSwap(old, next) {
			return old != next
		}
	}
}

// Watcher returns the owner of the node.
func (n *Node) Watcher() Watcher { return n.watcher }

// Changed tells the watcher that the reasons have changed, and those of others, of the same owner.
func (n *Node) Changed(others ...*Node) {
	if n.watcher != nil {
		n.watcher.Changed(others...)
	}
}

// Serial returns the number that tells this node from every other in its pool.
func (n *Node) Serial() uint64 { return n.serial }

// Base returns what sends attempts to the endpoint.
func (n *Node) Base() Base { return n.base }

// InFlight returns how many attempts were picked and have not ended.
func (n *Node) InFlight() int64 { return int64(n.load.Load() & inFlightMask) }

// Picks returns how many attempts were picked, modulo [PicksWrap].
func (n *Node) Picks() uint64 { return n.load.Load() / onePick }

// PicksWrap is where the number of picks begins anew, after two months of 100,000 a
// second.
const PicksWrap = 1 << 39

// Failures returns how many attempts spoke against the endpoint.
func (n *Node) Failures() uint64 { return n.failures.Load() }

// Reasons returns why the endpoint is not available.
func (n *Node) Reasons() Reasons {
	r := Reasons(n.reasons.Load())
	if n.load.Load()&removedBit != 0 {
		r |= Removed
	}
	return r
}

// Remove marks the node as gone. Those who hold it finish; the last one to end
// closes its connections.
func (n *Node) Remove() {
	if n.gate != nil {
		n.gate.Gone()
	}
	if n.monitor != nil {
		n.monitor.Gone()
	}
	if n.load.Or(removedBit)&inFlightMask == 0 {
		n.base.Close()
	}
}

// Grant is the answer to the wish for an attempt at a node.
type Grant uint8

// The answers.
const (
	// Granted: the attempt counts as in flight until Release.
	Granted Grant = iota
	// Gone: the node was removed. The picker held an old snapshot and must
	// take a new one.
	Gone
	// Full: the node has as many attempts as the limit allows.
	Full
)

// SetLimit sets how many attempts the node may have at once; 0 means any number.
// Those that it has stay.
func (n *Node) SetLimit(limit uint32) { n.limit.Store(limit) }

// Full reports whether the node has as many attempts as its limit allows.
func (n *Node) Full() bool {
	limit := n.limit.Load()
	return limit != 0 && n.load.Load()&inFlightMask >= uint64(limit)
}

// Acquire counts one attempt, unless the node was removed or is full.
func (n *Node) Acquire() Grant {
	load := n.load.Add(onePick + 1)
	limit := uint64(n.limit.Load())
	if load&removedBit == 0 && (limit == 0 || load&inFlightMask <= limit) {
		return Granted
	}
	n.Undo()
	if load&removedBit != 0 {
		return Gone
	}
	return Full
}

// one is what an attempt adds to the recent ones: the count has a few bits behind the point, so that it
// fades and does not jump.
const one = 16

// NoteRecent counts an attempt that was sent to the node. The count is halved with each tick.
func (n *Node) NoteRecent(tick uint32) {
	for {
		old := n.recent.Load()
		now := uint64(max(tick, uint32(old>>32)))<<32 | (faded(old, tick) + one)
		if n.recent.CompareAndSwap(old, now) {
			return
		}
	}
}

// Recent returns that count.
func (n *Node) Recent(tick uint32) float64 { return float64(faded(n.recent.Load(), tick)) / one }

// faded returns what is left of a count. A tick before its own leaves it.
func faded(recent uint64, tick uint32) uint64 {
	count := uint64(uint32(recent))
	if since := uint32(recent >> 32); tick > since {
		count >>= min(tick-since, 63)
	}
	return min(count, 1<<31)
}

// Undo makes what Acquire granted as if it had not been.
func (n *Node) Undo() { n.give(onePick + 1) }

// Release ends what Acquire began.
func (n *Node) Release() { n.give(1) }

// give takes load away. Removal and counts are one word, so either Remove sees
// that nobody is left, or the last one sees the removal: in both orders somebody
// closes the connections.
func (n *Node) give(load uint64) {
	if n.load.Add(-load)&(removedBit|inFlightMask) == removedBit {
		n.base.Close()
	}
}

// Pick is one acquired attempt at a node, with what its end must be told to.
// The zero Pick is none.
type Pick struct {
	Node     *Node
	Observer Observer // may be nil
	Token    uint32
	Number   int32
	Pass     Pass // may be nil
	Counted  bool // tell the watcher of the end
}

// Answered tells the observer, the gate and the monitor, and counts failures.
func (p *Pick) Answered(a outcome.Answer) {
	switch {
	case a.Class.Bad():
		p.Node.failures.Add(1)
	case a.Class == outcome.Overload && p.Node.watcher != nil:
		p.Node.watcher.Overloaded(a)
	}
	if p.Observer != nil {
		p.Observer.Answered(p.Token, a)
	}
	if p.Pass != nil && !p.Pass.Answered(p.Number, a) {
		p.Pass = nil
	}
	if p.Node.monitor != nil { // last: its hook may panic, and then nobody misses a permit
		p.Node.monitor.Answered(a)
	}
}

// Whole tells that the body of a good answer has ended as it should.
func (p *Pick) Whole() {
	if p.Pass != nil {
		p.Pass.Whole()
	}
	if p.Node.monitor != nil {
		p.Node.monitor.Whole()
	}
}

// Broke counts an attempt as failed after all: its answer was good, and then its
// body broke.
func (p *Pick) Broke(a outcome.Answer) {
	p.Node.failures.Add(1)
	if p.Pass != nil {
		p.Pass.Broke(a)
	}
	if p.Node.monitor != nil {
		p.Node.monitor.Broke(a)
	}
}

// Done ends the attempt, body included.
func (p *Pick) Done() {
	p.Node.Release()
	if p.Counted || p.Node.limit.Load() != 0 {
		p.Node.watcher.Ended(p.Counted)
	}
}
