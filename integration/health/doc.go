// Package health tests package health with real servers: its handler in front of Redis and
// PostgreSQL, which are stopped, started and frozen while it is asked, and its gRPC probe against
// grpc-go's health service. It has no code besides its tests.
package health
