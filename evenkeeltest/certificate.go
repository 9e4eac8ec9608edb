package evenkeeltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// authority issues the certificates of a network's servers.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey // the authority's own, and that of all servers
	pool *x509.CertPool

	mu     sync.Mutex // guards what follows
	serial int64
	issued map[string]*tls.Certificate // by name
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("evenkeeltest: generating a key: %v", err)
	}
	template := certificate("evenkeeltest authority", 1)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatalf("evenkeeltest: making the authority: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("evenkeeltest: parsing the authority: %v", err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), serial: 1}
	a.issued = make(map[string]*tls.Certificate)
	a.pool.AddCert(cert)
	return a
}

// certificate is valid for longer than tests live: the clock of a bubble starts
// in the year 2000, and a fake one may show anything.
func certificate(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// issue returns a certificate for a host name or an IP address.
func (a *authority) issue(name string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cert := a.issued[name]; cert != nil {
		return cert, nil
	}
	a.serial++
	template := certificate(name, a.serial)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	a.issued[name] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
	return a.issued[name], nil
}

// serverTLS returns the configuration of a server at host. If fixed is empty,
// the server has a certificate for whatever name the client asks for.
func (a *authority) serverTLS(host, fixed string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			switch {
			case fixed != "":
				return a.issue(fixed)
			case hello.ServerName != "":
				return a.issue(hello.ServerName)
			}
			return a.issue(host) // who dials an IP address names no server
		},
	}
}
