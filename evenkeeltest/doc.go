// Package evenkeeltest helps to test what is built on evenkeel, and evenkeel
// itself: a network without sockets, servers that do as they are told, and a
// request body that keeps account of its readers.
//
// A policy has two sides to test, and there is a tool for each.
//
// What a policy decides is a matter of events and instants. Give it a
// clock.Fake, tell it what happened, advance the clock, and look at what it
// says. Nothing of this package is needed for that.
//
// What a client does on the wire is tested in a bubble of testing/synctest, in
// which time passes only while everybody waits. A test with timeouts of 30
// seconds takes milliseconds, and durations come out exactly. Sockets do not
// work in there, because a goroutine that waits for the kernel does not count
// as waiting; a [Network] does:
//
//	synctest.Test(t, func(t *testing.T) {
//		network := evenkeeltest.NewNetwork(t)
//		users := network.Serve("users-1:80", evenkeeltest.Script(
//			evenkeeltest.Status(503).Header("Retry-After", "1"),
//			evenkeeltest.OK("users-1"),
//		))
//		client := &http.Client{Transport: network.Transport()}
//		...
//		users.Freeze() // the same as a firewall that drops
//		...
//		client.CloseIdleConnections()
//		network.AssertNoConns(t)
//	})
//
// To test a client of evenkeel, pass [Network.Transport] to
// evenkeel.WithTransport, and the [Server.Endpoint] of each server to its
// resolver.
//
// The network must be made inside the bubble that uses it, and whatever holds
// connections must be closed before the bubble ends: it panics when a goroutine
// stays behind, which makes every such test a test for leaks. Everything in this
// package works outside of bubbles as well, in real time.
//
// On a network that takes no time, the last thing that net/http does for one
// request may race with the next request: above all, an HTTP/2 connection becomes
// available to others a moment after its first answer. Call synctest.Wait between
// two requests before you count connections. With Go 1.25, tests with HTTP/2 in
// bubbles must not run in parallel with each other, because net/http keeps
// channels there which one bubble must not have from another.
//
// Every type is safe for concurrent use unless it says otherwise.
package evenkeeltest
