package call

import (
	"context"
	"sync/atomic"
)

// Limit bounds the attempts of a call together with those of the calls that are made inside
// it, so that retries around retries do not multiply. The first attempt of a call inside
// another one is the one that is under way there; what comes on top is counted by the outermost
// call that has a bound.
type Limit struct {
	outermost *Limit       // nil if that is this one
	most      int32        // 0 is no bound
	extra     atomic.Int32 // attempts beyond the first one, of all calls inside, too
}

// inside makes the call one inside another.
func (l *Limit) inside(outer *Limit) {
	if outer.outermost != nil {
		outer = outer.outermost
	}
	if outer.most > 0 {
		l.outermost = outer
	}
}

// set sets the bound. It has no effect if a call around this one has one.
func (l *Limit) set(n int) { l.most = int32(n) }

// counter returns who counts.
func (l *Limit) counter() *Limit {
	if l.outermost != nil {
		return l.outermost
	}
	return l
}

// Reserve counts one more attempt, if there may be one.
func (l *Limit) Reserve() bool {
	c := l.counter()
	for {
		extra := c.extra.Load()
		if c.most > 0 && extra+1 >= c.most {
			return false
		}
		if c.extra.CompareAndSwap(extra, extra+1) {
			return true
		}
	}
}

// Release takes back what Reserve counted: the attempt was not made.
func (l *Limit) Release() { l.counter().extra.Add(-1) }

// Scope is the context of a call that is not an HTTP request, in which such may be made.
type Scope struct {
	context.Context
	Limit
}

// NewScope returns the context of a call of at most so many attempts.
func NewScope(ctx context.Context, attempts int) *Scope {
	s := &Scope{Context: ctx}
	if outer := limitOf(ctx); outer != nil {
		s.inside(outer)
	}
	s.set(attempts)
	return s
}

// Value implements [context.Context].
func (s *Scope) Value(key any) any {
	switch key {
	case limitKey{}:
		return s
	case recordKey{}, attemptKey{}, lightKey{}:
		return nil // what is around it is not joined
	}
	return s.Context.Value(key)
}
