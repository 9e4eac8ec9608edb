// Package session tests the session store of contrib/redis with a real Redis, which is frozen, killed
// and restarted without its data while it is used. It has no code besides its tests.
package session
