package evenkeel_test

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// The conformance suite is the contract of an http.RoundTripper, as the library
// reads it, told as a table: each row is one behaviour. It is run against the
// whole stack and against each package's RoundTripper alone, over every
// protocol, because the layers meet the same obligations together and apart.
//
// A row's name begins with the ID of its behaviour, so that
//
//	go test -run 'TestConformance/T-08' .
//
// runs the rows of one behaviour, and .../T-08/.*/full/h2c one case of it.

// row is one behaviour. Its function says given, when and then; what holds after
// every row (nothing in flight, no connection, bodies closed once) is checked by
// stackUnderTest.finish.
type row struct {
	id, name string
	applies  applies
	// alone is for rows that look at what the whole process has: its heap,
	// its goroutines.
	alone bool
	run   func(t *testing.T, s *stackUnderTest)
}

// applies says where a row is run, and why not elsewhere.
type applies struct {
	stacks    []stackKind
	protocols []protocol
	why       string
}

func (a applies) over(why string, protocols ...protocol) applies {
	a.protocols = protocols
	a.why = strings.TrimPrefix(a.why+"; "+why, "; ")
	return a
}

// on limits a row to some stacks.
func on(why string, stacks ...stackKind) applies {
	return applies{stacks: stacks, protocols: protocols, why: why}
}

// stackKind is what is under test.
type stackKind string

const (
	full          stackKind = "full"     // evenkeel.New
	balancerAlone stackKind = "balancer" // balancer.NewTransport(pool, nil)
	retryAlone    stackKind = "retry"    // retry.NewTransport(http.Transport, Policy{})
	breakerAlone  stackKind = "breaker"  // breaker.NewTransport(http.Transport, Config{})
	throttleAlone stackKind = "throttle" // breaker.NewThrottleTransport(http.Transport, ThrottleConfig{})
)

// variant is a stack with something on that is off by default. To rows it is the stack itself:
// whatever they say of that must hold of this, too.
type variant struct {
	name stackKind
	of   stackKind
	on   func(*retry.Policy)
	not  map[string]string // rows that are not run with it, and why
}

var variants = []variant{
	{"hedged", full, func(p *retry.Policy) { p.Hedge = &retry.Hedge{After: hedgeAfter, Budget: -1} }, notHedged},
	{"spooling", retryAlone, func(p *retry.Policy) { p.Spool = 64 << 10 }, notSpooled},
}

// hedgeAfter is shorter than all that rows wait for.
const hedgeAfter = 5 * time.Millisecond

// notHedged and notSpooled are rows that say what only holds without.
var (
	notHedged = map[string]string{
		"T-09 a caller who cancels with a cause is no failure":             "it counts requests, of which there are two at once",
		"T-09 a caller whose deadline has a cause is no failure":           "it counts requests, of which there are two at once",
		"T-09 a caller who cancels an upload is no failure":                "it counts requests, of which there are two at once",
		"T-14 a call on a dead HTTP/2 connection is repeated on a new one": "the hedge answers long before the connection is found dead",
		"O-04 every stop has its reason":                                   "that there is no hedge is a decision, too, and is told",
		"defect-5 every draining endpoint is accounted for":                "the hedge goes to the endpoint that stays, and nothing drains",
		"P-01 Update keeps latencies, counts and connections":              "an endpoint that lost has closed its connection",
	}
	notSpooled = map[string]string{
		"T-02 a consumed body is not replayed": "it can be",
		"O-04 every stop has its reason":       "one of them is that the body cannot be sent again",
	}
)

// protocol is what the servers of a row speak.
type protocol string

const (
	http1 protocol = "http1"
	http2 protocol = "http2" // over TLS
	h2c   protocol = "h2c"
)

var (
	stacks     = []stackKind{full, balancerAlone, retryAlone, breakerAlone, throttleAlone}
	protocols  = []protocol{http1, http2, h2c}
	everywhere = applies{stacks: stacks, protocols: protocols}

	// What rows often ask for.
	whereRetried  = on("the balancer does not repeat", full, retryAlone)
	whereBalanced = on("retry alone has one transport and knows no endpoints", full, balancerAlone)
	wherePicked   = on("only the whole stack retries at another endpoint", full)
	wholeOnly     = on("only the whole stack has it", full)
)

func TestConformance(t *testing.T) {
	for name := range allExceptions() {
		assert.True(t, slices.ContainsFunc(conformanceRows(), func(r row) bool { return r.id+" "+r.name == name }), "there is no row %s", name)
	}
	// Rows that look at the whole process come first, and alone. Go 1.25 shares
	// channels of HTTP/2 between bubbles, so there no two may run at once.
	together := !strings.HasPrefix(runtime.Version(), "go1.25")
	for _, alone := range []bool{true, false} { // parallel rows start when the others are done
		for _, r := range conformanceRows() {
			if r.alone != alone {
				continue
			}
			if !slices.Equal(r.applies.stacks, stacks) || !slices.Equal(r.applies.protocols, protocols) {
				assert.NotEmpty(t, r.applies.why, "%s %s does not say why it is not run everywhere", r.id, r.name)
			}
			for _, kind := range r.applies.stacks {
				if r.excepts(kind) {
					continue
				}
				for _, v := range r.variants(kind) {
					for _, p := range r.protocols(v) {
						t.Run(r.id+"/"+r.name+"/"+string(v.name)+"/"+string(p), func(t *testing.T) {
							if !r.alone && together {
								t.Parallel()
							}
							bubble(t, v, p, r.run)
						})
					}
				}
			}
		}
	}
}

// notGuarded are rows that are run everywhere but on breakers and throttles alone, with the
// reason. They guard one transport of the user's, and are the only layer.
var notGuarded = map[string]string{
	"T-12 CloseIdleConnections reaches every endpoint":          "they know no endpoints; in package breaker there is a test",
	"T-12 CloseIdleConnections reaches custom transports":       "they know no endpoints; in package breaker there is a test",
	"R-03 net/http does not repeat a request with a key":        "nobody above could, so net/http does as it would without them",
	"R-02 net/http does not send it again by itself":            "nobody above could, so net/http does as it would without them",
	"R-01 PROTOCOL_ERROR is the exception which net/http makes": "nobody above could, so net/http does as it would without them",
}

// excepts reports whether the row is not run on a stack although it is said to apply.
func (r row) excepts(kind stackKind) bool {
	return (kind == breakerAlone || kind == throttleAlone) && notGuarded[r.id+" "+r.name] != ""
}

// costly are rows that take long: variants run them over the first protocol only.
var costly = map[string]bool{
	"T-16 churn leaks nothing":                         true,
	"T-04 a stream takes no memory":                    true,
	"T-07 the caller's request is not changed":         true,
	"T-08 a slow body outlives the time limits":        true,
	"B-01 in-flight counts return to zero on the wire": true,
	"R-17 attempt 2 goes elsewhere, by round robin":    true,
	"R-17 attempt 2 goes elsewhere, by random":         true,
	"R-17 attempt 2 goes elsewhere, by least request":  true,
	"R-17 attempt 2 goes elsewhere, by peak EWMA":      true,
	"defect-7 two targets share nothing":               true,
}

// protocols returns those over which the row is run.
func (r row) protocols(v variant) []protocol {
	if v.on != nil && costly[r.id+" "+r.name] {
		return r.applies.protocols[:1]
	}
	return r.applies.protocols
}

// allExceptions are the rows that are not run with something.
func allExceptions() map[string]string {
	all := maps.Clone(notGuarded)
	for _, v := range variants {
		maps.Copy(all, v.not)
	}
	for name := range costly {
		all[name] = "it takes long"
	}
	return all
}

// variants returns the stack itself, and what is made of it.
func (r row) variants(kind stackKind) []variant {
	list := []variant{{name: kind, of: kind}}
	for _, v := range variants {
		if v.of == kind && v.not[r.id+" "+r.name] == "" {
			list = append(list, v)
		}
	}
	return list
}

func conformanceRows() []row {
	return slices.Concat(
		bodyRows(), refusalRows(), requestRows(), answerRows(), contextRows(), connectionRows(),
		replayRows(), repeatRows(), discardRows(), endpointRows(), discoveryRows(), policyRows(),
		secretRows(), defectRows(),
	)
}

// bubble runs a row in a bubble of its own, which is also its test for leaks: it
// panics when a goroutine stays behind.
func bubble(t *testing.T, v variant, p protocol, run func(*testing.T, *stackUnderTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stackUnderTest{t: t, kind: v.of, variant: v, protocol: p, network: evenkeeltest.NewNetwork(t)}
		watchdog := time.AfterFunc(48*time.Hour, func() {
			// Pings would let the bubble's time run for ever.
			t.Error("the row hangs")
			s.network.Close()
		})
		defer watchdog.Stop()
		run(t, s)
		s.finish()
	})
}

// stackUnderTest is a network with servers on it and the RoundTripper that is
// tested.
type stackUnderTest struct {
	t        *testing.T
	kind     stackKind
	variant  variant
	protocol protocol
	network  *evenkeeltest.Network
	servers  []*evenkeeltest.Server
	bodies   []*evenkeeltest.Body

	rt    http.RoundTripper
	whole *evenkeel.Transport // nil unless kind is full
	pool  *balancer.Pool      // nil unless kind is balancerAlone
	close func()
}

// config is what a row may choose. What does not exist in a stack is left out
// there.
type config struct {
	retry    retry.Policy
	timeout  time.Duration      // of the whole call
	balancer balancer.Algorithm // nil means RoundRobin, whose picks are even
	rand     rand.Source        // of all choices; nil leaves them to chance
	resolver discovery.Resolver // nil means the servers that were started before

	dial     func(next dialFunc) dialFunc // around the network's
	template func(*http.Transport)
	endpoint func(discovery.Endpoint) http.RoundTripper // in place of the template
	attempt  func(http.RoundTripper) http.RoundTripper
	hooks    evenkeel.Hooks
	options  []evenkeel.Option
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// host is the logical service. No server has this address: they are endpoints.
const host = "svc.example"

func (s *stackUnderTest) scheme() string {
	if s.protocol == http2 {
		return "https"
	}
	return "http"
}

func (s *stackUnderTest) url() string { return s.scheme() + "://" + host + "/" }

// serve starts a server that speaks the row's protocol and answers by a script.
func (s *stackUnderTest) serve(name string, steps ...http.Handler) *evenkeeltest.Server {
	s.t.Helper()
	if len(steps) == 0 {
		steps = []http.Handler{evenkeeltest.OK(name)}
	}
	return s.serveConfig(evenkeeltest.ServerConfig{Address: name + ":80", Handler: evenkeeltest.Script(steps...)})
}

func (s *stackUnderTest) serveConfig(c evenkeeltest.ServerConfig) *evenkeeltest.Server {
	s.t.Helper()
	switch s.protocol {
	case http1:
		c.Protocol = evenkeeltest.HTTP1
	case http2:
		c.Protocol = evenkeeltest.HTTPS
	case h2c:
		c.Protocol = evenkeeltest.H2C
	}
	server := s.network.Start(c)
	s.servers = append(s.servers, server)
	return server
}

// use makes the stack.
func (s *stackUnderTest) use(c config) {
	s.t.Helper()
	if c.balancer == nil {
		c.balancer = balancer.RoundRobin{}
	}
	if c.resolver == nil {
		c.resolver = s.endpoints()
	}
	if s.variant.on != nil {
		s.variant.on(&c.retry)
	}
	switch s.kind {
	case full:
		s.useWhole(c)
	case balancerAlone:
		s.useBalancer(c)
	case retryAlone:
		s.useRetry(c)
	case breakerAlone:
		s.useBreaker(c)
	case throttleAlone:
		s.useThrottle(c)
	}
	s.t.Cleanup(s.close) // also when the row fails half way: the bubble must end
}

func (s *stackUnderTest) endpoints() discovery.List {
	list := discovery.List{}
	for _, server := range s.servers {
		list = append(list, server.Endpoint())
	}
	return list
}

func (s *stackUnderTest) useWhole(c config) {
	s.t.Helper()
	options := []evenkeel.Option{
		evenkeel.WithResolver(c.resolver), evenkeel.WithBalancer(c.balancer), evenkeel.WithRetry(c.retry),
		evenkeel.WithTimeout(c.timeout), evenkeel.WithHooks(c.hooks),
	}
	if c.endpoint != nil {
		options = append(options, evenkeel.WithEndpointTransport(c.endpoint))
	} else {
		options = append(options, evenkeel.WithTransport(s.template(c)))
	}
	if c.attempt != nil {
		options = append(options, evenkeel.WithAttempt(c.attempt))
	}
	if c.rand != nil {
		options = append(options, evenkeel.WithRand(c.rand))
	}
	tr, err := evenkeel.New(s.scheme()+"://"+host, append(options, c.options...)...)
	require.NoError(s.t, err)
	s.rt, s.whole = tr, tr
	s.close = func() { assert.NoError(s.t, tr.Close()) }
}

func (s *stackUnderTest) useBalancer(c config) {
	s.t.Helper()
	pc := balancer.Config{
		Resolver: c.resolver, Algorithm: c.balancer, Wrap: c.attempt, EndpointTransport: c.endpoint,
	}
	if c.endpoint == nil {
		pc.Template = s.template(c)
	}
	if c.rand != nil {
		pc.Rand = c.rand
	}
	pool, err := balancer.NewPool(pc)
	require.NoError(s.t, err)
	s.rt, s.pool = balancer.NewTransport(pool, nil), pool
	s.close = pool.Close
}

func (s *stackUnderTest) useRetry(c config) {
	s.t.Helper()
	next := s.lone(&c)
	if c.rand != nil {
		c.retry.Rand = c.rand
	}
	rt, err := retry.NewTransport(next, c.retry)
	require.NoError(s.t, err)
	s.rt = rt
}

func (s *stackUnderTest) useBreaker(c config) {
	s.t.Helper()
	rt, err := breaker.NewTransport(s.lone(&c), breaker.Config{Rand: c.rand})
	require.NoError(s.t, err)
	s.rt = rt
	s.closeBefore(rt)
}

func (s *stackUnderTest) useThrottle(c config) {
	s.t.Helper()
	rt, err := breaker.NewThrottleTransport(s.lone(&c), breaker.ThrottleConfig{Rand: c.rand})
	require.NoError(s.t, err)
	s.rt = rt
	s.closeBefore(rt)
}

// lone returns the one transport that a stack without a balancer has, and sees to it that its
// connections are closed.
func (s *stackUnderTest) lone(c *config) http.RoundTripper {
	s.t.Helper()
	var next http.RoundTripper
	var closeIdle func()
	if c.endpoint != nil {
		next, closeIdle = c.endpoint(discovery.Endpoint{}), func() {}
	} else {
		tr := s.template(*c)
		tr.DialContext = s.dialFirst(tr.DialContext)
		next, closeIdle = tr, tr.CloseIdleConnections
	}
	if c.attempt != nil {
		next = c.attempt(next)
	}
	s.close = func() {
		synctest.Wait() // net/http finishes with a stream of HTTP/2 after its last byte was read
		closeIdle()
	}
	return next
}

// closeBefore closes something before the connections.
func (s *stackUnderTest) closeBefore(c io.Closer) {
	closeIdle := s.close
	s.close = func() {
		assert.NoError(s.t, c.Close())
		closeIdle()
	}
}

// dialFirst dials the first server, whatever the address: a transport without a
// balancer would dial the host of the URL.
func (s *stackUnderTest) dialFirst(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if len(s.servers) > 0 {
			address = s.servers[0].Addr()
		}
		return dial(ctx, network, address)
	}
}

func (s *stackUnderTest) template(c config) *http.Transport {
	tr := s.network.Transport()
	if s.protocol == h2c {
		tr = s.network.TransportH2C()
	}
	if c.dial != nil {
		tr.DialContext = c.dial(tr.DialContext)
	}
	if c.template != nil {
		c.template(tr)
	}
	return tr
}

// finish checks what holds after every row.
func (s *stackUnderTest) finish() {
	s.t.Helper()
	synctest.Wait()
	for _, e := range s.status().Endpoints {
		assert.Zero(s.t, e.InFlight, "requests in flight at %s", e.Endpoint)
	}
	if s.whole != nil {
		assert.Zero(s.t, s.whole.Stats().Active, "calls that have not ended")
	}
	if s.close != nil {
		s.close()
	}
	synctest.Wait()
	s.network.AssertNoConns(s.t)
	for _, b := range s.bodies {
		b.AssertClosed(s.t)
	}
}

// status is what the stack knows of its endpoints: nothing in retry alone.
func (s *stackUnderTest) status() balancer.Status {
	switch {
	case s.whole != nil:
		return s.whole.Stats().Pool
	case s.pool != nil:
		return s.pool.Status()
	}
	return balancer.Status{}
}

// failures returns how many attempts spoke against the endpoint.
func (s *stackUnderTest) failures(server *evenkeeltest.Server) int {
	for _, e := range s.status().Endpoints {
		if e.Endpoint.Address == server.Addr() {
			return int(e.Failures)
		}
	}
	return 0
}

// retries reports whether the stack repeats attempts.
func (s *stackUnderTest) retries() bool { return s.kind == full || s.kind == retryAlone }

// request returns a request without a body.
func (s *stackUnderTest) request(method string) *http.Request {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url(), http.NoBody)
	require.NoError(s.t, err)
	req.Body = nil
	return req
}

// stream returns a request with a body that can be sent once.
func (s *stackUnderTest) stream(method string, body *evenkeeltest.Body) *http.Request {
	s.t.Helper()
	req := s.request(method)
	body.Stream(req)
	s.bodies = append(s.bodies, body)
	return req
}

// replayable returns a request with a body that has GetBody.
func (s *stackUnderTest) replayable(method string, body *evenkeeltest.Body) *http.Request {
	s.t.Helper()
	req := s.request(method)
	body.Replayable(req)
	s.bodies = append(s.bodies, body)
	return req
}

// do sends the request.
func (s *stackUnderTest) do(req *http.Request) (*http.Response, error) {
	s.t.Helper()
	resp, err := s.rt.RoundTrip(req)
	assert.False(s.t, resp != nil && err != nil, "an error beside a response")
	return resp, err
}

// answer sends the request, which must be answered, and reads the answer.
func (s *stackUnderTest) answer(req *http.Request) (status int, body string) {
	s.t.Helper()
	resp, err := s.do(req)
	require.NoError(s.t, err)
	return resp.StatusCode, readBody(s.t, resp)
}

// get gets the body of an answer that must be 200.
func (s *stackUnderTest) get() string {
	s.t.Helper()
	status, body := s.answer(s.request(http.MethodGet))
	require.Equal(s.t, http.StatusOK, status)
	return body
}

// settle waits until net/http has finished with what was answered. On HTTP/2 that
// is a little after the last byte was read; a request that comes before may dial.
func (s *stackUnderTest) settle() { synctest.Wait() }

// fail sends the request, which must not be answered.
func (s *stackUnderTest) fail(req *http.Request) error {
	s.t.Helper()
	resp, err := s.do(req)
	if resp != nil {
		resp.Body.Close()
	}
	require.Error(s.t, err)
	return err
}

func readBody(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(body)
}

// sent returns how many attempts the error says were sent.
func sent(err error) int {
	if e := as[*evenkeel.Error](err); e != nil {
		return len(e.Attempts)
	}
	if e := as[*retry.Error](err); e != nil {
		return len(e.Attempts)
	}
	return 1
}

// reason returns why the call ended, as its error says.
func reason(err error) outcome.Reason {
	if e := as[*evenkeel.Error](err); e != nil {
		return e.Reason
	}
	if e := as[*retry.Error](err); e != nil {
		return e.Reason
	}
	return outcome.ReasonOf(err)
}
