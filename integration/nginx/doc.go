// Package nginx tests evenkeel against real nginx processes: they are killed,
// restarted, reloaded and taken away while calls are under way, and their own
// access logs tell what has reached them. It has no code besides its tests.
package nginx
