//go:build go1.26

package evenkeeltest

// emptyPools does nothing: this net/http keeps no channels across bubbles.
func emptyPools() {}
