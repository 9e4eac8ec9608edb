// Package gateway tests the example examples/gateway as its users meet it: with a browser in front,
// and behind it servers that are killed and come back. It has no code besides its tests.
package gateway
