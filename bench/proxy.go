package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// site is what a proxy is set up with.
type site struct {
	dir           string // of its own
	http, https   string // where it listens
	admin         string
	backend, grpc string
	cert          *certificate
	routes        int
	binary        string // of Portico
	self          string // this program
	syslog        string // a socket
}

// proxy is one that runs.
type proxy struct {
	name string
	site
	*process
}

// peers make the command of each proxy, and write the files it needs.
var peers = map[string]func(*site) ([]string, error){
	"portico":     setUpPortico,
	"nginx":       setUpNginx,
	"haproxy":     setUpHAProxy,
	"haproxy+log": setUpHAProxyWithLog,
	"net/http":    setUpReverseProxy,
}

func (b *bench) startProxy(ctx context.Context, name string) (*proxy, error) {
	s := b.site
	kind := name
	s.binary = b.cfg.portico
	if name == "portico-old" {
		kind, s.binary = "portico", b.cfg.old
	}
	var err error
	if s.dir, err = os.MkdirTemp(b.dir, strings.ReplaceAll(name, "/", "-")); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&s.http, &s.https, &s.admin} {
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	args, err := peers[kind](&s)
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, b.cfg.proxyCPU, filepath.Join(s.dir, "output"), args...)
	if err != nil {
		return nil, err
	}
	x := &proxy{name: name, site: s, process: p}
	if err := x.answers(ctx); err != nil {
		output, _ := os.ReadFile(filepath.Join(s.dir, "output"))
		p.stop()
		return nil, fmt.Errorf("%s: %w\n%s", name, err, output)
	}
	return x, nil
}

// answers waits until it serves.
func (p *proxy) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		err := ask(ctx, client, "http://"+p.http+"/")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-p.exited:
			return errors.New("has ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Host = hostName
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.ContentLength != smallBody {
		return fmt.Errorf("%s: %s with %d bytes", url, answer.Status, answer.ContentLength)
	}
	return nil
}

func setUpPortico(s *site) ([]string, error) {
	manifests := filepath.Join(s.dir, "manifests")
	if err := os.Mkdir(manifests, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(manifests, "bench.yaml"), []byte(s.manifests()), 0o600); err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(s.binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, errors.Join(err, errors.New("make build makes it"))
	}
	return []string{
		binary, "serve", "--manifests", manifests, "--http", s.http, "--https", s.https, "--admin", s.admin,
		"--access-log", filepath.Join(s.dir, "access.log"), "--default-ssl-certificate", "bench/tls",
	}, nil
}

func setUpNginx(s *site) ([]string, error) {
	file := filepath.Join(s.dir, "nginx.conf")
	text := strings.NewReplacer(
		"DIR", s.dir, "HTTPS", s.https, "HTTP", s.http, "BACKEND", s.backend, "GRPC", s.grpc,
		"CERT", s.cert.certFile, "KEY", s.cert.keyFile,
	).Replace(nginxConf)
	return []string{"nginx", "-p", s.dir, "-c", file}, os.WriteFile(file, []byte(text), 0o600)
}

// nginxConf is nginx as one would set it up for this, with buffered access logs, connections
// kept to the backend, and no temporary files.
const nginxConf = `
daemon off;
worker_processes 1;
pid DIR/nginx.pid;
error_log DIR/error.log error;
events { worker_connections 18000; }
http {
	access_log DIR/access.log combined buffer=64k flush=1s;
	client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	keepalive_requests 1000000000;
	keepalive_timeout 300s;
	sendfile on;
	tcp_nopush on;
	ssl_protocols TLSv1.3;
	ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
	ssl_ecdh_curve X25519;
	ssl_certificate CERT;
	ssl_certificate_key KEY;
	http2_max_requests 1000000000;
	upstream backend { server BACKEND; keepalive 512; keepalive_requests 1000000000; }
	upstream grpc { server GRPC; keepalive 512; keepalive_requests 1000000000; }
	server {
		listen HTTP;
		listen HTTPS ssl http2;
		location / {
			proxy_pass http://backend;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_set_header X-Request-ID $request_id;
			proxy_set_header X-Real-IP $remote_addr;
			proxy_set_header X-Forwarded-For $remote_addr;
			proxy_set_header X-Forwarded-Host $host;
			proxy_set_header X-Forwarded-Proto $scheme;
			proxy_max_temp_file_size 0;
		}
		location /grpc.Bench/ { grpc_pass grpc://grpc; }
	}
}
`

func setUpHAProxy(s *site) ([]string, error) { return s.haproxy(haproxyConf) }

// setUpHAProxyWithLog has it log as it mostly does, to a socket of datagrams. Somebody has to
// read them: the backend does.
func setUpHAProxyWithLog(s *site) ([]string, error) {
	return s.haproxy(strings.NewReplacer(
		"global\n", "global\n\tlog "+s.syslog+" local0\n", "defaults\n", "defaults\n\tlog global\n\toption httplog\n",
	).Replace(haproxyConf))
}

func (s *site) haproxy(conf string) ([]string, error) {
	file := filepath.Join(s.dir, "haproxy.cfg")
	text := strings.NewReplacer(
		"HTTPS", s.https, "HTTP", s.http, "BACKEND", s.backend, "GRPC", s.grpc, "PEM", s.cert.bothFile,
	).Replace(conf)
	return []string{"haproxy", "-db", "-f", file}, os.WriteFile(file, []byte(text), 0o600)
}

// haproxyConf is HAProxy with one thread and without a log: it writes none to files.
const haproxyConf = `
global
	nbthread 1
	ssl-default-bind-options ssl-min-ver TLSv1.3
	ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
	ssl-default-bind-curves X25519
defaults
	mode http
	timeout client 300s
	timeout server 60s
	timeout connect 5s
	timeout http-keep-alive 300s
	option forwardfor
	http-reuse always
frontend in
	bind HTTP
	bind HTTPS ssl crt PEM alpn h2,http/1.1
	unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
	unique-id-header X-Request-ID
	http-request set-header X-Forwarded-Proto https if { ssl_fc }
	use_backend grpc if { path_beg /grpc.Bench/ }
	default_backend backend
backend backend
	server one BACKEND pool-max-conn 512
backend grpc
	server one GRPC proto h2
`

func setUpReverseProxy(s *site) ([]string, error) {
	return []string{s.self, "reverseproxy", s.http, s.https, s.backend, s.grpc, s.cert.certFile, s.cert.keyFile}, nil
}
