package redis

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/session"
)

// Store is a [session.Store] in Redis. Use [New] to make one, and [Store.Close] to end it. It is safe
// for concurrent use.
//
// A key that [Store.Pin] has forgotten is not restored from the memory of a replica: Redis holds a mark in
// its place. One that was deleted from Redis by hand is.
type Store struct {
	client  redis.UniversalClient
	pins    *redis.Script // pinScript
	extends *redis.Script // extendScript
	breaker *breaker.Breaker
	local   *session.Table
	prefix  string
	ttl     time.Duration
	marks   int64 // the life of a mark, in milliseconds
	timeout time.Duration
	closed  atomic.Bool
}

var _ session.Store = (*Store)(nil)

// pinScript pins or forgets a key, unless it is pinned to another endpoint than the one it may be taken
// from. ARGV is that endpoint, the one to pin to or nothing to forget the key, the same if Redis has no such
// key, and the lives of a key and of a mark. The mark is an empty value: the key was forgotten, and a
// replica that still remembers it must not restore it. From nothing to nothing changes nothing, so it
// restores what Redis has lost, but not what was forgotten. Redis runs the script in one piece.
const pinScript = `
local pinned, from, to, life = redis.call('GET', KEYS[1]), ARGV[1], ARGV[2], ARGV[4]
if not pinned then
	to = ARGV[3]
elseif pinned ~= '' and pinned ~= from then
	redis.call('PEXPIRE', KEYS[1], life)
	return pinned
end
if to == '' then
	if from == '' then
		return ''
	end
	life = ARGV[5]
end
redis.call('SET', KEYS[1], to, 'PX', life)
return to
`

// extendScript gives a key, if it is still pinned to ARGV[1], the life ARGV[2]. What was read a moment ago
// may be a mark by now, whose longer life must not be cut short.
const extendScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then
	return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
`

// New returns a store, or all that is wrong with the configuration. It does not connect: a service
// must be able to start while Redis is away.
func New(c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	local, err := session.NewTable(c.Local)
	if err != nil {
		return nil, err
	}
	guard, err := breaker.New("redis session store", c.Breaker)
	if err != nil {
		return nil, err
	}
	client, err := newClient(c.Options)
	if err != nil {
		return nil, err
	}
	return &Store{
		client: client, pins: redis.NewScript(pinScript), extends: redis.NewScript(extendScript), breaker: guard, local: local,
		prefix: c.Prefix, ttl: c.TTL.Truncate(time.Millisecond), timeout: c.Timeout,
		// What an operation has read before the key was forgotten, it remembers up to Timeout later.
		marks: max(c.TTL, c.Local.TTL).Milliseconds() + c.Timeout.Milliseconds() + 1,
	}, nil
}

// newClient returns a client, or what go-redis panics with where it cannot use an option.
func newClient(o redis.UniversalOptions) (client redis.UniversalClient, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &evenkeel.FieldError{Field: "Options", Value: "others", Problem: fmt.Sprintf("go-redis cannot use them: %v", r)}
		}
	}()
	return redis.NewUniversalClient(&o), nil
}

// Lookup implements [session.Store]. When Redis cannot be asked it returns an error, and with it the
// endpoint that this replica remembers, if there is one.
func (s *Store) Lookup(ctx context.Context, key string) (endpoint string, err error) {
	return s.ask(ctx, key, func(ctx context.Context) (string, error) {
		name := s.name(key)
		endpoint, known, err := s.get(ctx, name)
		if known || err != nil {
			return endpoint, err
		}
		// Redis has lost what this replica has not forgotten yet, unless it is forgotten just now.
		if lost, _ := s.local.Lookup(ctx, key); lost != "" {
			return s.pin(ctx, name, "", "", lost)
		}
		return "", nil
	}, s.local.Lookup)
}

// Pin implements [session.Store]. When Redis cannot be asked it returns an error, and with it the
// endpoint to which the key is pinned in the memory of this replica. A key that it forgets with an error
// is forgotten only there: Redis and other replicas may still know it.
func (s *Store) Pin(ctx context.Context, key, from, to string) (endpoint string, err error) {
	return s.ask(ctx, key, func(ctx context.Context) (string, error) {
		ifLost, _ := s.local.Lookup(ctx, key)
		if ifLost == "" || ifLost == from {
			ifLost = to
		}
		return s.pin(ctx, s.name(key), from, to, ifLost)
	}, func(ctx context.Context, key string) (string, error) {
		return s.local.Pin(ctx, key, from, to)
	})
}

// ask lets Redis answer, or otherwise the memory of this replica.
func (s *Store) ask(
	ctx context.Context, key string,
	inRedis func(context.Context) (string, error),
	here func(context.Context, string) (string, error),
) (endpoint string, err error) {
	if s.closed.Load() {
		return "", ErrClosed
	}
	endpoint, err = breaker.Do(punctually(ctx), s.breaker, func(ctx context.Context) (string, error) {
		ctx, end := limit(ctx, s.timeout)
		defer end()
		endpoint, err := inRedis(ctx)
		return endpoint, explain(err)
	})
	switch {
	case err == nil:
		s.remember(ctx, key, endpoint)
		return endpoint, nil
	case s.closed.Load():
		return "", ErrClosed
	}
	endpoint, _ = here(ctx, key)
	return endpoint, err
}

// remember makes this replica's memory say what Redis says: nothing, if there is nothing to restore or
// the key was forgotten.
func (s *Store) remember(ctx context.Context, key, endpoint string) {
	for from := ""; ; {
		pinned, _ := s.local.Pin(ctx, key, from, endpoint)
		if pinned == endpoint {
			return
		}
		from = pinned
	}
}

// name returns the key of Redis that stands for a session's.
func (s *Store) name(key string) string {
	hash := sha256.Sum256([]byte(key))
	return s.prefix + base64.RawURLEncoding.EncodeToString(hash[:])
}

// get returns where a key is pinned, and extends its life. What is known and pinned nowhere was forgotten.
func (s *Store) get(ctx context.Context, name string) (endpoint string, known bool, err error) {
	var value *redis.StringCmd
	var left *redis.DurationCmd
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		value, left = p.Get(ctx, name), p.PTTL(ctx, name)
		return nil
	})
	switch {
	case errors.Is(err, redis.Nil):
		return "", false, nil
	case err != nil:
		return "", false, err
	case value.Val() == "":
		return "", true, nil // a mark is not kept by those who find it
	}
	if s.due(left.Val()) {
		// If it fails, the next one extends it.
		_ = s.extends.Run(ctx, s.client, []string{name}, value.Val(), s.ttl.Milliseconds()).Err()
	}
	return value.Val(), true, nil
}

// due reports whether a key with so much life left should be given its full life. More than that, or no
// end at all, it has from somebody with another TTL, or from no store.
func (s *Store) due(left time.Duration) bool {
	const gone = -2 // the answer of PTTL for a key that has just expired
	return left != gone && (left < s.ttl/4*3 || left > s.ttl)
}

// pin runs [pinScript].
func (s *Store) pin(ctx context.Context, name, from, to, ifLost string) (string, error) {
	return s.pins.Run(ctx, s.client, []string{name}, from, to, ifLost, s.ttl.Milliseconds(), s.marks).Text()
}

// Ping asks Redis whether it is there, whatever the breaker thinks of it: for a component of package
// health. It takes no longer than the store's Timeout.
func (s *Store) Ping(ctx context.Context) error {
	if s.closed.Load() {
		return ErrClosed
	}
	ctx, end := limit(ctx, s.timeout)
	defer end()
	return explain(s.client.Ping(ctx).Err())
}

// Breaker returns the store's breaker, to look at, or to leave Redis alone by hand:
// SetMode(breaker.ForcedOpen).
func (s *Store) Breaker() *breaker.Breaker { return s.breaker }

// Close closes the connections. What is under way fails, and so does all that comes later, with
// [ErrClosed]. A second time does nothing.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return explain(s.client.Close())
}
