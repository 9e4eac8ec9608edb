module github.com/evenkeel-go/evenkeel/examples/gateway

go 1.25

replace github.com/evenkeel-go/evenkeel => ../..

require (
	github.com/coder/websocket v1.8.15
	github.com/evenkeel-go/evenkeel v0.0.0-00010101000000-000000000000
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/rs/cors v1.11.1
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.19.0 // indirect
)
