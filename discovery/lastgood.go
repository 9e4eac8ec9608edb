package discovery

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// LastGood keeps a service reachable while its source errs. It stands between a
// resolver and whoever uses the endpoints, and is a resolver itself:
//
//   - An error changes nothing: the endpoints stay, however long it lasts.
//   - An empty answer is believed only after EmptyGrace without an answer that
//     has endpoints; only the very first answer is passed on even if it is
//     empty. An error during the grace time neither ends nor extends it.
//   - An endpoint that is not valid, or is in the set already, is left out and
//     counted. If that leaves nothing, it was not an empty answer but an error.
//   - A set that equals the one in use, in whatever order, is not passed on.
//   - A watch that breaks is started again, after 1s or more, at most 60s while
//     it goes on breaking. A refresh cuts that short to 1s.
//
// A panic in the resolver or in OnEvent is not recovered. A LastGood is a value
// and may be used concurrently.
type LastGood struct {
	// Resolver is the source.
	Resolver Resolver

	// EmptyGrace is how long the endpoints stay after the source began to say
	// that there are none. Zero means 30s, negative that it is believed at once.
	EmptyGrace time.Duration

	// MinShare raises an event ([Dropped]) when an answer leaves less than
	// this share of the endpoints. Zero means 0.5, negative is off, more than
	// 1 is an error.
	MinShare float64

	// OnEvent is told all that happens, after the sink was told of it. It runs
	// on the goroutine of the watch, never twice at once, and holds it up.
	// It may be nil.
	OnEvent func(Event)
}

const (
	defaultEmptyGrace = 30 * time.Second
	defaultMinShare   = 0.5
)

// Watch implements [Resolver]. It returns an error other than that of ctx only
// if its own fields are not valid.
func (l LastGood) Watch(ctx context.Context, sink Sink) error {
	var errs field.Errors
	if l.check(&errs); errs.Err() != nil {
		return errs.Err()
	}
	l = l.withDefaults()
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	reports := make(chan report)
	wg.Go(func() { supervise(inner, 0, l.Resolver, sink, reports) })
	return l.run(ctx, sink, reports)
}

// Validate returns all problems joined, or nil: its own, and those of the
// resolver if that is a [Validator].
func (l LastGood) Validate() error {
	var errs field.Errors
	l.check(&errs)
	if v, ok := l.Resolver.(Validator); ok {
		errs.Under("Resolver", v.Validate())
	}
	return errs.Err()
}

func (l LastGood) check(errs *field.Errors) {
	errs.Check(l.Resolver != nil, "Resolver", l.Resolver, "must be set")
	errs.Check(!math.IsNaN(l.MinShare) && l.MinShare <= 1, "MinShare", l.MinShare, "must not be greater than 1")
}

func (l LastGood) withDefaults() LastGood {
	if l.EmptyGrace == 0 {
		l.EmptyGrace = defaultEmptyGrace
	}
	if l.MinShare == 0 {
		l.MinShare = defaultMinShare
	}
	return l
}

// run acts on all reports, and on the end of the grace time, until ctx is done.
// It is the only goroutine that calls the sink and OnEvent.
func (l LastGood) run(ctx context.Context, sink Sink, reports <-chan report) error {
	k := keeper{grace: l.EmptyGrace, minShare: l.MinShare}
	a := alarm{clock: sink.Clock, rang: make(chan struct{}, 1)}
	defer a.off()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-reports:
			l.act(sink, &k, k.take(sink.Clock.Now(), r))
		case <-a.rang:
			a.off() // it may have rung early, if the clock jumped back
			l.act(sink, &k, k.tick(sink.Clock.Now()))
		}
		if k.holding {
			a.set(k.emptyAt)
		} else {
			a.off()
		}
	}
}

func (l LastGood) act(sink Sink, k *keeper, s step) {
	if s.failed != nil {
		sink.Fail(s.failed)
	}
	if s.update {
		sink.Update(k.set, s.skipped)
	}
	if l.OnEvent == nil {
		return
	}
	for _, e := range s.events {
		l.OnEvent(e)
	}
}

// alarm is a timer that can be waited on in a select. It is used by one
// goroutine.
type alarm struct {
	clock clock.Clock
	rang  chan struct{}
	timer clock.Timer // nil when off
	at    time.Time
}

// set makes the alarm ring at the given instant. It may ring for an earlier
// setting, too: whoever hears it looks at the clock.
func (a *alarm) set(at time.Time) {
	if a.timer != nil && a.at.Equal(at) {
		return
	}
	a.off()
	a.at = at
	a.timer = a.clock.AfterFunc(at.Sub(a.clock.Now()), func() {
		select {
		case a.rang <- struct{}{}:
		default:
		}
	})
}

func (a *alarm) off() {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}
