package acl_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.certificate, a.key = sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "an authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	return a
}

// sign makes a certificate, signed by an authority or, without one, by itself.
func sign(t *testing.T, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by = &authority{template, key}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(raw)
	require.NoError(t, err)
	return certificate, key
}

// issue makes a certificate for this machine.
func (a *authority) issue(t *testing.T) tls.Certificate {
	t.Helper()
	certificate, key := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "somebody"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
	return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// writePEM writes a file that Redis reads, and gives its path.
func writePEM(t *testing.T, name, kind string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
	return path
}

// startTLS starts a server that only speaks TLS, and only with clients that have a
// certificate of the same authority.
func startTLS(t *testing.T, a *authority) *redistest.Server {
	t.Helper()
	queuetest.SkipShort(t)
	own := a.issue(t)
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	require.NoError(t, err)
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.pool(), Certificates: []tls.Certificate{a.issue(t)}}
	return redistest.StartTLS(
		t, config, "--tls-auth-clients", "yes",
		"--tls-ca-cert-file", writePEM(t, "ca.pem", "CERTIFICATE", a.certificate.Raw),
		"--tls-cert-file", writePEM(t, "server.pem", "CERTIFICATE", own.Certificate[0]),
		"--tls-key-file", writePEM(t, "server.key", "PRIVATE KEY", key),
	)
}

// withCertificates is the option that users write.
func withCertificates(roots *x509.CertPool, certificates ...tls.Certificate) func(*rueidis.ClientOption) {
	return func(o *rueidis.ClientOption) { o.TLSConfig.RootCAs, o.TLSConfig.Certificates = roots, certificates }
}

// On a server that asks its clients for certificates, all connections of a queue have them,
// including those that block and those that are subscribed. Users with a password and no
// more permissions than they need work over TLS as well.
func TestTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := startTLS(t, a)
	published := readBlocks(t)
	for _, role := range []string{"producer", "worker"} {
		grant(t, []*redistest.Server{s}, published[role])
	}
	with := withCertificates(a.pool(), a.issue(t))
	as := func(user string) string {
		return strings.Replace(s.URL(), "rediss://", "rediss://"+user+":"+password+"@", 1)
	}
	for name, urls := range map[string]struct{ producer, worker string }{
		"without users": {s.URL(), s.URL()},
		"with users":    {as("producer"), as("worker")},
	} {
		t.Run(name, func(t *testing.T) {
			producer := queuetest.Attach(t, queuetest.Dial(t, urls.producer, with), queueName)
			worker := queuetest.Attach(t, queuetest.Dial(t, urls.worker, with), queueName)
			heard := make(chan string, 10)
			producer.OnJobSucceeded(func(id string, _ json.RawMessage) { heard <- id })
			r := queuetest.Process(t, worker.Queue, 2, func(context.Context, *beequeue.Job) (any, error) { return "done", nil })
			for range 3 {
				job := producer.Save("over TLS")
				result, err := job.Wait(queuetest.Bounded(t))
				require.NoError(t, err)
				require.JSONEq(t, `"done"`, string(result))
			}
			queuetest.Receive(t, heard, "an event")
			require.NoError(t, r.Stop())
			require.NoError(t, producer.Close(queuetest.Bounded(t)))
			require.NoError(t, worker.Close(queuetest.Bounded(t)))
			require.Empty(t, append(producer.TakeErrors(), worker.TakeErrors()...))
		})
	}
}

// Whatever is wrong with the certificates, Dial ends with its context, and its error says
// what it is.
func TestTLSRefused(t *testing.T) {
	t.Parallel()
	a, foreign := newAuthority(t), newAuthority(t)
	s := startTLS(t, a)
	mine := a.issue(t)
	for name, c := range map[string]struct {
		user, want string
		option     func(*rueidis.ClientOption)
	}{
		"no certificate":                {"", "tls: certificate required", withCertificates(a.pool())},
		"one of another authority":      {"", "certificate", withCertificates(a.pool(), foreign.issue(t))},
		"a server of another authority": {"", "x509: certificate signed by unknown authority", withCertificates(foreign.pool(), mine)},
		"a server of the system's":      {"", "x509: certificate signed by unknown authority", withCertificates(nil, mine)},
		"a server of another name": {"", "x509: certificate is not valid for any names, but wanted to match redis.example.org", func(o *rueidis.ClientOption) {
			withCertificates(a.pool(), mine)(o)
			o.TLSConfig.ServerName = "redis.example.org"
		}},
		"the wrong password": {"nobody:wrong@", "WRONGPASS", withCertificates(a.pool(), mine)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, single := range []bool{false, true} {
				url := strings.Replace(s.URL(), "rediss://", "rediss://"+c.user, 1)
				var late []time.Duration // the end of Dial after its context
				dial := func(most time.Duration) error {
					began := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), most)
					defer cancel()
					client, err := beequeue.Dial(ctx, url, c.option, func(o *rueidis.ClientOption) { o.ForceSingleClient = single })
					require.Nil(t, client)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					late = append(late, time.Since(began)-most)
					return err
				}
				// A busy machine may not complete a try.
				err, most := dial(time.Second), time.Second
				for most < 20*time.Second && (!strings.Contains(err.Error(), c.want) || slices.Min(late) > 2*time.Second) {
					most *= 3
					err = dial(most)
				}
				require.ErrorContains(t, err, c.want)
				require.LessOrEqual(t, slices.Min(late), 2*time.Second, "rueidis's own timeout is 5 s")
			}
		})
	}
}

// A server that rejects a client's certificate says so and hangs up. In TLS 1.3 the client
// may be sending by then. It must hear of the reason nevertheless.
func TestDialHearsWhyTLSEnded(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hungUp := make(chan struct{})
	own := a.issue(t)
	go func() {
		defer close(hungUp)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			secure := tls.Server(conn, &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientCAs: a.pool(),
				ClientAuth: tls.RequireAndVerifyClientCert,
			})
			_ = secure.Handshake()
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset
			_ = conn.Close()
			hungUp <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		for range hungUp {
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_, err = beequeue.Dial(ctx, "rediss://"+listener.Addr().String(), withCertificates(a.pool()), func(o *rueidis.ClientOption) {
		o.ForceSingleClient = true
		o.DialCtxFn = func(_ context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			if tries++; tries == 3 {
				cancel()
				return nil, queuetest.ErrBroken
			}
			conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).Dial("tcp", address)
			<-hungUp
			return conn, err
		}
	})
	require.ErrorContains(t, err, "remote error: tls: certificate required")
}
