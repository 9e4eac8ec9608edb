// Package discovery tests the resolvers of package discovery against a real DNS
// server, over sockets and in real time.
package discovery
