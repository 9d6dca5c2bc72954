// SPDX-License-Identifier: Apache-2.0

// The streaming server against Kubernetes' own clients: what kubectl, crictl and the API server use.
//
// Environment: CRI_SOCKET, CRI_CONTAINER (running, with a shell), CRI_POD (the same pod's sandbox).
package goclient

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func runtime(t *testing.T) cri.RuntimeServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+os.Getenv("CRI_SOCKET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return cri.NewRuntimeServiceClient(conn)
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return c
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Each way that client-go has to run a command.
var ways = map[string]func(u *url.URL) (remotecommand.Executor, error){
	"spdy": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
	},
	"websocket": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", u.String())
	},
	"websocket-v4": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{}, "GET", u.String(), "v4.channel.k8s.io")
	},
	// What kubectl does: WebSocket, and SPDY when that is refused.
	"fallback": func(u *url.URL) (remotecommand.Executor, error) {
		second, err := remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
		if err != nil {
			return nil, err
		}
		first, err := remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", u.String())
		if err != nil {
			return nil, err
		}
		return remotecommand.NewFallbackExecutor(first, second, httpstream.IsUpgradeFailure)
	},
}

func eachWay(t *testing.T, test func(t *testing.T, way string)) {
	for way := range ways {
		t.Run(way, func(t *testing.T) { test(t, way) })
	}
}

// Runs a command in the container.
func run(t *testing.T, c context.Context, way string, o remotecommand.StreamOptions, command ...string) error {
	t.Helper()
	answer, err := runtime(t).Exec(c, &cri.ExecRequest{ContainerId: os.Getenv("CRI_CONTAINER"), Cmd: command,
		Stdin: o.Stdin != nil, Stdout: o.Stdout != nil, Stderr: o.Stderr != nil && !o.Tty, Tty: o.Tty})
	if err != nil {
		t.Fatal(err)
	}
	executor, err := ways[way](parse(t, answer.Url))
	if err != nil {
		t.Fatal(err)
	}
	return executor.StreamWithContext(c, o)
}

func TestOutputsAndCode(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		var out, errs bytes.Buffer
		err := run(t, ctx(t), way, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}, "sh", "-c", "echo out; echo err >&2; exit 7")
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 7 {
			t.Fatalf("not exit code 7: %v", err)
		}
		if out.String() != "out\n" || errs.String() != "err\n" {
			t.Fatalf("%q %q", out.String(), errs.String())
		}
	})
}

func TestNoSuchCommand(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		var out bytes.Buffer
		err := run(t, ctx(t), way, remotecommand.StreamOptions{Stdout: &out}, "/no/such/command")
		if err == nil || !strings.Contains(err.Error(), "/no/such/command") {
			t.Fatalf("no clear error: %v", err)
		}
	})
}

// Megabytes in and the same out, binary.
func TestBulkBothWays(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		data := make([]byte, 12<<20+17)
		rand.New(rand.NewSource(1)).Read(data)
		out := sha256.New()
		stdin := io.Reader(bytes.NewReader(data))
		command := []string{"cat"}
		if way == "websocket-v4" { // no way to end the input
			command = []string{"head", "-c", fmt.Sprint(len(data))}
		}
		if err := run(t, ctx(t), way, remotecommand.StreamOptions{Stdin: stdin, Stdout: out}, command...); err != nil {
			t.Fatal(err)
		}
		if want := sha256.Sum256(data); !bytes.Equal(want[:], out.Sum(nil)) {
			t.Fatal("not what was sent")
		}
	})
}

type slowWriter struct {
	n int
}

// Takes nothing at first: the process must wait.
func (w *slowWriter) Write(p []byte) (int, error) {
	if w.n == 0 {
		time.Sleep(700 * time.Millisecond)
	}
	w.n += len(p)
	return len(p), nil
}

func TestSlowReader(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		w := &slowWriter{}
		err := run(t, ctx(t), way, remotecommand.StreamOptions{Stdout: w}, "head", "-c", "20000000", "/dev/zero")
		if err != nil || w.n != 20000000 {
			t.Fatal(w.n, err)
		}
	})
}

type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

func TestTerminal(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		var out bytes.Buffer
		queue := make(sizes, 1)
		queue <- remotecommand.TerminalSize{Width: 123, Height: 45}
		defer close(queue)
		in, typed := io.Pipe()
		go func() {
			time.Sleep(300 * time.Millisecond)
			fmt.Fprint(typed, "stty size; tty; exit 3\n")
		}()
		defer typed.Close()
		err := run(t, ctx(t), way, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: queue},
			"sh")
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 3 {
			t.Fatalf("not exit code 3: %v; %q", err, out.String())
		}
		if !strings.Contains(out.String(), "45 123") || !strings.Contains(out.String(), "/dev/pts/") {
			t.Fatalf("%q", out.String())
		}
	})
}

func output(t *testing.T, command ...string) string {
	t.Helper()
	answer, err := runtime(t).ExecSync(ctx(t), &cri.ExecSyncRequest{ContainerId: os.Getenv("CRI_CONTAINER"), Cmd: command})
	if err != nil {
		t.Fatal(err)
	}
	return string(answer.Stdout)
}

// A client that gives up ends its command.
func TestCancel(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		c, cancel := context.WithCancel(ctx(t))
		var out bytes.Buffer
		mark := fmt.Sprint(1000000 + rand.Intn(1000000))
		go func() {
			for i := 0; i < 200 && !strings.Contains(output(t, "ps"), "sleep "+mark); i++ {
				time.Sleep(20 * time.Millisecond)
			}
			cancel()
		}()
		if err := run(t, c, way, remotecommand.StreamOptions{Stdout: &out}, "sleep", mark); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		for i := 0; strings.Contains(output(t, "ps"), "sleep "+mark); i++ {
			if i == 300 {
				t.Fatal("the command goes on")
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	var group sync.WaitGroup
	for i := 0; i < 24; i++ {
		way := []string{"spdy", "websocket", "fallback"}[i%3]
		group.Add(1)
		go func() {
			defer group.Done()
			var out bytes.Buffer
			text := fmt.Sprint("number ", i)
			err := run(t, ctx(t), way, remotecommand.StreamOptions{Stdin: strings.NewReader(text), Stdout: &out}, "cat")
			if err != nil || out.String() != text {
				t.Errorf("%s: %q %v", way, out.String(), err)
			}
		}()
	}
	group.Wait()
}

// ---- port forwards ----

// A listener in the pod's network, which is the machine's: it sends back what comes, and ends when that ends.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

var dialers = map[string]func(u *url.URL) (httpstream.Dialer, error){
	"spdy": func(u *url.URL) (httpstream.Dialer, error) {
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
		if err != nil {
			return nil, err
		}
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u), nil
	},
	"tunnel": func(u *url.URL) (httpstream.Dialer, error) {
		return portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{})
	},
}

// A forward to the port; returns the local port.
func forward(t *testing.T, kind, port string) string {
	t.Helper()
	answer, err := runtime(t).PortForward(ctx(t), &cri.PortForwardRequest{PodSandboxId: os.Getenv("CRI_POD")})
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := dialers[kind](parse(t, answer.Url))
	if err != nil {
		t.Fatal(err)
	}
	stop, ready, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var log bytes.Buffer
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:" + port}, stop, ready, io.Discard, &log)
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("not ready")
	}
	t.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(ports[0].Local)
}

func TestForward(t *testing.T) {
	port := startEcho(t)
	for kind := range dialers {
		t.Run(kind, func(t *testing.T) {
			local := forward(t, kind, port)
			var group sync.WaitGroup
			for i := 0; i < 10; i++ {
				group.Add(1)
				go func() {
					defer group.Done()
					conn, err := net.Dial("tcp", "127.0.0.1:"+local)
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					data := make([]byte, 1<<20+i)
					rand.New(rand.NewSource(int64(i))).Read(data)
					go func() {
						conn.Write(data)
						conn.(*net.TCPConn).CloseWrite()
					}()
					got, err := io.ReadAll(conn)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("connection %d: %d bytes of %d: %v", i, len(got), len(data), err)
					}
				}()
			}
			group.Wait()
		})
	}
}

// Where nothing listens, a connection ends; the forward goes on or ends with a clear error, and other forwards do not notice.
func TestForwardToNothing(t *testing.T) {
	for kind := range dialers {
		t.Run(kind, func(t *testing.T) {
			answer, err := runtime(t).PortForward(ctx(t), &cri.PortForwardRequest{PodSandboxId: os.Getenv("CRI_POD")})
			if err != nil {
				t.Fatal(err)
			}
			dialer, err := dialers[kind](parse(t, answer.Url))
			if err != nil {
				t.Fatal(err)
			}
			connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			headers := http.Header{}
			headers.Set("streamType", "error")
			headers.Set("port", "7999")
			headers.Set("requestID", "0")
			errs, err := connection.CreateStream(headers)
			if err != nil {
				t.Fatal(err)
			}
			errs.Close()
			headers.Set("streamType", "data")
			if _, err = connection.CreateStream(headers); err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(errs)
			if err != nil || !strings.Contains(string(text), "7999") {
				t.Fatalf("no clear error: %q %v", text, err)
			}
		})
	}
}
