//go:build !go1.26

package evenkeeltest

import "runtime"

// emptyPools drops what lies in any sync.Pool. The HTTP/2 server of Go 1.25 keeps
// channels in one; in the next bubble, such a channel is a fatal error. The
// first collection makes a pool's content the second choice, the second one
// frees it.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}
