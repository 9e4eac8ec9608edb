// Package template is the transport that those of endpoints are clones of: what a user's says, and
// evenkeel's defaults where it says nothing.
package template

import (
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// The settings of the transports that evenkeel makes. A template changes what it
// sets itself.
const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	idleConnTimeout  = 90 * time.Second
	keepAlive        = 30 * time.Second
	maxIdleConns     = 100 // per endpoint; net/http's 2 would open a new connection for nearly every concurrent request
	// A connection of HTTP/2 that has been silent for pingAfter is sent a
	// ping; without an answer within pingTimeout it is closed. Otherwise a
	// connection whose peer has vanished is used until TCP gives up, which
	// takes up to 15 minutes.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// New returns a template of our own: what the user's says, and our defaults
// where it says nothing.
func New(users *http.Transport) *http.Transport {
	if users == nil {
		users = &http.Transport{
			TLSHandshakeTimeout:   handshakeTimeout,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       idleConnTimeout,
		}
	}
	t := users.Clone()
	// To clone a transport decides, once and for both, whether it speaks
	// HTTP/2, and leaves the answer only here. Without ForceAttemptHTTP2 the
	// clones would offer HTTP/2 to the server and not understand it, because
	// they have a dialer of ours.
	if t.TLSClientConfig != nil && slices.Contains(t.TLSClientConfig.NextProtos, "h2") {
		t.ForceAttemptHTTP2 = true
	}
	t.Proxy = nil
	if t.DialContext == nil {
		t.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
	}
	if t.MaxIdleConnsPerHost == 0 {
		t.MaxIdleConnsPerHost = maxIdleConns
	}
	if t.HTTP2 == nil {
		t.HTTP2 = &http.HTTP2Config{}
	}
	if t.HTTP2.SendPingTimeout == 0 {
		t.HTTP2.SendPingTimeout = pingAfter
	}
	if t.HTTP2.PingTimeout == 0 {
		t.HTTP2.PingTimeout = pingTimeout
	}
	return t
}

// Check refuses what cannot be made to dial an endpoint while TLS goes
// on speaking of the target.
func Check(t *http.Transport) error {
	if t == nil {
		return nil
	}
	var errs field.Errors
	const advice = "must not be set: use DialContext, or WithEndpointTransport"
	errs.Check(t.DialTLSContext == nil, "DialTLSContext", "set", advice)
	errs.Check(t.DialTLS == nil, "DialTLS", "set", advice)                       //nolint:staticcheck // deprecated, and therefore refused
	errs.Check(t.Dial == nil, "Dial", "set", "must not be set: use DialContext") //nolint:staticcheck // deprecated, and therefore refused
	return errs.Err()
}
