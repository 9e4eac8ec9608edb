package evenkeel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// The counting servers: very many calls of all kinds, through everything that can go wrong, and
// in the end the servers say what they have seen.

const (
	countedCalls    = 50_000 // for each protocol
	countedWorkers  = 64
	countedAttempts = 4
	// What net/http may use up in one attempt for a request without a body, which it repeats by
	// itself: over HTTP/2 as many connections as evenkeel lets it, over HTTP/1 the idle ones, each
	// of which may turn out to be dead, and a fresh one.
	mostOverHTTP2 = 3
	mostOverHTTP1 = 100 + 1
)

// kind is a kind of request.
type kind struct {
	name   string
	method string
	stream bool // without GetBody
	empty  bool
	mark   retry.Mark
	key    bool // has an Idempotency-Key
	once   bool // servers may see it once at most
}

var kinds = []kind{
	{name: "GET", method: "GET", empty: true},
	{name: "GET, one attempt", method: "GET", empty: true, mark: retry.Once},
	{name: "PUT", method: "PUT"},
	{name: "PUT of a stream", method: "PUT", stream: true},
	{name: "POST", method: "POST", once: true},
	{name: "POST without a body", method: "POST", empty: true, once: true},
	{name: "POST of a stream", method: "POST", stream: true, once: true},
	{name: "POST with a key", method: "POST", key: true},
	{name: "POST marked", method: "POST", mark: retry.Idempotent},
	{name: "PATCH", method: "PATCH", once: true},
	{name: "PUT marked as not idempotent", method: "PUT", mark: retry.NotIdempotent, once: true},
}

// tally is what servers and callers have counted in one bubble.
type tally struct {
	t       *testing.T
	seed    uint64
	breaks  float64 // how often a server breaks its connection
	seen    []atomic.Int32
	whole   []atomic.Int64 // when a server finished a 200, in nanoseconds
	at      []atomic.Value // which one that was
	shared  bool           // calls share connections
	kinds   []int
	broken  map[string][]time.Time // when an address lost connections
	mu      sync.Mutex             // guards broken, ended
	ended   map[string]int
	opened  atomic.Int64
	closed  atomic.Int64
	again   atomic.Int64 // Closes too many
	garbled atomic.Int64 // bodies that ended well, but were not whole
	sends   atomic.Int64
}

// random is the same for the same call and step.
func (c *tally) random(id, step int) *rand.Rand {
	return rand.New(rand.NewPCG(c.seed, uint64(id)<<8|uint64(step)))
}

func (c *tally) content(id int) string {
	return strings.Repeat(strconv.Itoa(id)+".", 1+c.random(id, 200).IntN(100))
}

func (c *tally) breaksAt(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken[address] = append(c.broken[address], time.Now())
}

func (c *tally) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[what]++
}

// handler answers by the plan of a call and of how often it was seen.
func (c *tally) handler(address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.Header.Get("X-Call"))
		if !assert.NoError(c.t, err) {
			return
		}
		n := int(c.seen[id].Add(1))
		c.sends.Add(1)
		random := c.random(id, n)
		if random.Float64() < c.breaks {
			if c.shared {
				c.breaksAt(address)
			}
			evenkeeltest.ResetAfter(int64(random.IntN(2)*1<<20)).ServeHTTP(w, r)
			return
		}
		slow := time.Duration(random.IntN(80)-40) * time.Millisecond // mostly at once, some later than a hedge begins
		switch x := random.Float64(); {
		case x < 0.06:
			evenkeeltest.Status(500).ServeHTTP(w, r)
		case x < 0.12:
			evenkeeltest.Status(502).Delay(slow).ServeHTTP(w, r)
		case x < 0.17:
			evenkeeltest.EarlyStatus(503).ServeHTTP(w, r)
		case x < 0.20:
			evenkeeltest.Status(429).ServeHTTP(w, r)
		case x < 0.203:
			evenkeeltest.Status(503).Header("Retry-After", "1").ServeHTTP(w, r)
		case x < 0.23:
			evenkeeltest.Hang().ServeHTTP(w, r)
		case x < 0.25:
			evenkeeltest.OK(c.echo(id)).CloseMidBody(3).ServeHTTP(w, r)
		default:
			c.serve(w, r, id, address, slow)
		}
	})
}

func (c *tally) echo(id int) string { return fmt.Sprintf("this is the answer to %d", id) }

// serve answers 200 to a request that has arrived whole.
func (c *tally) serve(w http.ResponseWriter, r *http.Request, id int, address string, slow time.Duration) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	want := c.content(id)
	if kinds[c.kinds[id]].empty {
		want = ""
	}
	if string(body) != want {
		c.garbled.Add(1)
	}
	time.Sleep(slow)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-At", address)
	_, err = io.WriteString(w, c.echo(id))
	if err == nil && http.NewResponseController(w).Flush() == nil {
		c.at[id].Store(address)
		c.whole[id].Store(time.Now().UnixNano())
	}
}

// countedBody is a request's body of which every copy must be closed once.
type countedBody struct {
	io.Reader
	tally  *tally
	closes atomic.Int32
}

func (c *tally) body(content string) io.ReadCloser {
	c.opened.Add(1)
	return &countedBody{Reader: strings.NewReader(content), tally: c}
}

func (b *countedBody) Close() error {
	if b.closes.Add(1) > 1 {
		b.tally.again.Add(1)
	} else {
		b.tally.closed.Add(1)
	}
	return nil
}

// request makes the request of a call.
func (c *tally) request(ctx context.Context, id int) *http.Request {
	k := kinds[c.kinds[id]]
	if k.mark != 0 {
		ctx = retry.WithMark(ctx, k.mark)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, "http://users/", nil)
	if !assert.NoError(c.t, err) {
		return nil
	}
	req.Header.Set("X-Call", strconv.Itoa(id))
	if k.key {
		req.Header.Set("Idempotency-Key", strconv.Itoa(id))
	}
	if k.empty {
		return req
	}
	content := c.content(id)
	req.Body, req.ContentLength = c.body(content), -1
	if !k.stream {
		req.ContentLength = int64(len(content))
		req.GetBody = func() (io.ReadCloser, error) { return c.body(content), nil }
	}
	return req
}

// call makes a call, and notes what came of it.
func (c *tally) call(tr *evenkeel.Transport, id int) {
	ctx, random := context.Background(), c.random(id, 201)
	impatient := random.IntN(12) == 0
	if impatient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(1+random.IntN(60))*time.Millisecond)
		defer cancel()
	}
	resp, err := tr.RoundTrip(c.request(ctx, id))
	if err != nil {
		var failed *evenkeel.Error
		assert.ErrorAs(c.t, err, &failed, "call %d", id)
		assert.Nil(c.t, resp)
		c.noLostAnswer(id, impatient, "error")
		return
	}
	info, ok := evenkeel.InfoOf(resp)
	assert.True(c.t, ok)
	assert.LessOrEqual(c.t, len(info.Attempts), countedAttempts+2)
	body, err := io.ReadAll(resp.Body)
	assert.NoError(c.t, resp.Body.Close())
	switch {
	case resp.StatusCode != http.StatusOK:
		c.noLostAnswer(id, impatient, strconv.Itoa(resp.StatusCode))
	case err != nil:
		lost := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || resp.ProtoMajor == 2
		assert.True(c.t, impatient || lost, "call %d: %v", id, err)
		c.count("200 of which a part is missing")
	default:
		assert.Equal(c.t, c.echo(id), string(body))
		c.count("200")
	}
}

// noLostAnswer notes a call that did not end with 200. If a server had finished one, then its
// caller had gone, or the connection broke right then.
func (c *tally) noLostAnswer(id int, impatient bool, what string) {
	c.count(what)
	at := c.whole[id].Load()
	if at == 0 || impatient {
		return
	}
	finished := time.Unix(0, at)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, broke := range c.broken[c.at[id].Load().(string)] {
		if d := broke.Sub(finished); d > -time.Millisecond && d < 2*time.Millisecond {
			return
		}
	}
	assert.Fail(c.t, "a server has answered 200, and the caller did not get it", "call %d: %s", id, what)
}

// trouble breaks servers and the network until the context ends.
func (c *tally) trouble(ctx context.Context, network *evenkeeltest.Network, servers []*evenkeeltest.Server) {
	random := c.random(0, 202)
	for ctx.Err() == nil {
		time.Sleep(time.Duration(100+random.IntN(400)) * time.Millisecond)
		s := servers[random.IntN(len(servers))]
		pause := time.Duration(random.IntN(100)) * time.Millisecond
		switch random.IntN(3) {
		case 0:
			network.Refuse(s.Addr())
			time.Sleep(pause)
			network.Heal(s.Addr())
		case 1:
			c.breaksAt(s.Addr())
			s.Restart()
		case 2:
			c.breaksAt(s.Addr())
			s.Kill()
			time.Sleep(pause)
			s.Restart()
		}
	}
}

// Given very many calls while servers fail in every way, then no request that must not be
// repeated is seen twice, none more often than is allowed, no answer is lost or mixed up, bodies
// arrive whole, and nothing is left in the end.
func TestCounting_ServersSeeWhatIsAllowed_R01_R03_R05_T01_T06_B01(t *testing.T) {
	t.Parallel()
	for i, row := range []struct {
		name     string
		protocol evenkeeltest.Protocol
		breaks   float64 // on HTTP/2 all that share the connection break
	}{{"http1", evenkeeltest.HTTP1, 0.06}, {"h2c", evenkeeltest.H2C, 0.004}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel() // one for each processor
			seed := uint64(1000 + i)
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) {
				c := &tally{
					t: t, seed: seed, breaks: row.breaks, seen: make([]atomic.Int32, countedCalls), whole: make([]atomic.Int64, countedCalls),
					at: make([]atomic.Value, countedCalls), shared: row.protocol == evenkeeltest.H2C,
					kinds: make([]int, countedCalls), broken: map[string][]time.Time{}, ended: map[string]int{},
				}
				for id := range c.kinds {
					c.kinds[id] = c.random(id, 203).IntN(len(kinds))
				}
				c.run(row.protocol)
				c.check()
			})
		})
	}
}

// run makes the calls.
func (c *tally) run(protocol evenkeeltest.Protocol) {
	network := evenkeeltest.NewNetwork(c.t)
	var servers []*evenkeeltest.Server
	list := discovery.List{}
	for _, address := range []string{"a:80", "b:80", "c:80", "d:80"} {
		s := network.Start(evenkeeltest.ServerConfig{Address: address, Handler: c.handler(address), Protocol: protocol})
		servers, list = append(servers, s), append(list, s.Endpoint())
	}
	var transports []*evenkeel.Transport
	for _, hedge := range []*retry.Hedge{nil, {After: 30 * time.Millisecond, Budget: -1}} {
		template := network.Transport()
		if protocol == evenkeeltest.H2C {
			template = network.TransportH2C()
		}
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(list), evenkeel.WithTransport(template),
			evenkeel.WithRules(balancer.Rules{SlowStart: balancer.SlowStart{Window: time.Second}}),
			evenkeel.WithRetry(retry.Policy{
				MaxAttempts: countedAttempts, PerAttemptTimeout: 200 * time.Millisecond, Backoff: retry.Backoff{Base: time.Millisecond},
				Budget: retry.Quota{Size: -1}, Hedge: hedge,
			}))
		require.NoError(c.t, err)
		defer func() { assert.NoError(c.t, tr.Close()) }()
		transports = append(transports, tr)
	}
	ctx, stop := context.WithCancel(c.t.Context())
	var calling, troubling sync.WaitGroup
	troubling.Go(func() { c.trouble(ctx, network, servers) })
	var next atomic.Int64
	for w := range countedWorkers {
		calling.Go(func() {
			for id := int(next.Add(1)) - 1; id < countedCalls; id = int(next.Add(1)) - 1 {
				c.call(transports[w%len(transports)], id)
			}
		})
	}
	calling.Wait()
	stop()
	troubling.Wait()
	time.Sleep(time.Second) // attempts that lost have ended
	synctest.Wait()
	retries, calls := uint64(0), uint64(0)
	for _, tr := range transports {
		stats := tr.Stats()
		calls, retries = calls+stats.Calls, retries+stats.Retries
		assert.Zero(c.t, stats.Active)
		for _, e := range stats.Pool.Endpoints {
			assert.Zero(c.t, e.InFlight, "%s", e.Endpoint)
		}
	}
	assert.EqualValues(c.t, countedCalls, calls)
	c.t.Logf("%d calls, %d retries and hedges, %d requests seen by servers", calls, retries, c.sends.Load())
}

// check looks at what was counted.
func (c *tally) check() {
	bad, repeated, most := 0, make([]int, len(kinds)), make([]int, len(kinds))
	for id := range c.seen {
		seen, k := int(c.seen[id].Load()), kinds[c.kinds[id]]
		allowed, repeats := countedAttempts+2, mostOverHTTP1
		if c.shared {
			repeats = mostOverHTTP2
		}
		switch {
		case k.once:
			allowed = 1
		case k.mark&retry.Once != 0:
			allowed = repeats
		case k.empty: // net/http repeats what has no body, which evenkeel bounds
			allowed = countedAttempts * repeats
		}
		if seen > allowed {
			if bad++; bad <= 10 {
				assert.LessOrEqual(c.t, seen, allowed, "call %d, %s", id, k.name)
			}
		}
		if seen > 1 {
			repeated[c.kinds[id]]++
		}
		most[c.kinds[id]] = max(most[c.kinds[id]], seen)
	}
	assert.Zero(c.t, bad, "calls that were seen too often")
	for i, k := range kinds {
		c.t.Logf("%-30s %5d were seen more than once, one of them %d times", k.name, repeated[i], most[i])
		if !k.once && !k.stream && k.mark&retry.Once == 0 { // a stream goes on only if nobody has read it, which is rare
			assert.Positive(c.t, repeated[i], "%s was never repeated, so nothing was tested", k.name)
		}
	}
	c.t.Logf("calls ended so: %v", c.ended)
	total := 0
	for _, n := range c.ended {
		total += n
	}
	assert.Equal(c.t, countedCalls, total)
	assert.Greater(c.t, c.ended["200"], countedCalls/2)
	assert.Zero(c.t, c.garbled.Load(), "bodies that ended well, but were not whole")
	assert.Zero(c.t, c.again.Load(), "bodies closed twice")
	assert.Equal(c.t, c.opened.Load(), c.closed.Load(), "bodies opened, and closed")
}
