// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Streams as kubelet's clients use them: client-go over what Exec, Attach and PortForward answer with.

const megabyte = 1_000_000

func executor(address string) (remotecommand.Executor, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if *protocol == "websocket" {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", u.String())
	}
	return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
}

func (c *client) stream(id string, o remotecommand.StreamOptions, command ...string) error {
	answer, err := c.run.Exec(c.ctx, &cri.ExecRequest{ContainerId: id, Cmd: command, Stdin: o.Stdin != nil,
		Stdout: o.Stdout != nil, Stderr: o.Stderr != nil})
	if err != nil {
		return fmt.Errorf("Exec: %w", err)
	}
	e, err := executor(answer.Url)
	if err == nil {
		err = e.StreamWithContext(c.ctx, o)
	}
	if err != nil {
		return fmt.Errorf("exec of %v: %w", command, err)
	}
	return nil
}

// lines gives n bytes in lines of 100.
type lines struct {
	left int
	at   int
}

var line = append(bytes.Repeat([]byte("x"), 99), '\n')

// A block of whole lines, and one more to begin in the middle of a line.
var block = bytes.Repeat(line, 1<<16/len(line)+2)

func (l *lines) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), l.left, len(block)-len(line))], block[l.at%len(line):])
	l.at += n
	l.left -= n
	return n, nil
}

// counter counts what is written to it and tells when all has come.
type counter struct {
	want, have int
	done       chan struct{}
}

func (w *counter) Write(p []byte) (int, error) {
	before := w.have
	w.have += len(p)
	if w.done != nil && before < w.want && w.have >= w.want {
		close(w.done)
	}
	return len(p), nil
}

// execStream is `true`, from the Exec call until its status has come.
func (c *client) execStream() error {
	p, id, err := c.idle("stream", 0)
	if err != nil {
		return err
	}
	var took times
	for i := 0; i < *number+3; i++ {
		begin := time.Now()
		if err = c.stream(id, remotecommand.StreamOptions{Stdout: io.Discard, Stderr: io.Discard}, "true"); err != nil {
			return err
		}
		if i >= 3 {
			took = append(took, time.Since(begin))
		}
	}
	took.say("exec")
	return p.end()
}

// execData pumps -n megabytes through `cat`: standard input to standard output.
func (c *client) execData() error {
	p, id, err := c.idle("stream", 0)
	if err != nil {
		return err
	}
	out := &counter{want: *number * megabyte}
	begin := time.Now()
	if err = c.stream(id, remotecommand.StreamOptions{Stdin: &lines{left: out.want}, Stdout: out}, "cat"); err != nil {
		return err
	}
	seconds := time.Since(begin).Seconds()
	if out.have != out.want {
		return fmt.Errorf("%d of %d bytes came back", out.have, out.want)
	}
	say(map[string]any{"measure": "data", "seconds": seconds, "mb_per_s": float64(*number) / seconds})
	return p.end()
}

// attached is a client of a container that runs `cat`.
type attached struct {
	in   *io.PipeWriter
	out  *io.PipeReader
	stop context.CancelFunc
	over chan error
}

func (c *client) attachTo(id string, in io.Reader, out io.Writer) (context.CancelFunc, chan error, error) {
	answer, err := c.run.Attach(c.ctx, &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
	if err != nil {
		return nil, nil, fmt.Errorf("Attach: %w", err)
	}
	e, err := executor(answer.Url)
	if err != nil {
		return nil, nil, err
	}
	ctx, stop := context.WithCancel(c.ctx)
	over := make(chan error, 1)
	go func() { over <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out}) }()
	return stop, over, nil
}

func (c *client) attachPipes(id string) (*attached, error) {
	fromUs, in := io.Pipe()
	out, toUs := io.Pipe()
	stop, over, err := c.attachTo(id, fromUs, toUs)
	if err != nil {
		return nil, err
	}
	return &attached{in, out, stop, over}, nil
}

// echo sends a line and waits until it has come back.
func (a *attached) echo() error {
	back := make([]byte, len(line))
	if _, err := a.in.Write(line); err != nil {
		return err
	}
	_, err := io.ReadFull(a.out, back)
	return err
}

func (a *attached) end() {
	a.stop()
	a.in.Close()
	a.out.Close()
	<-a.over
}

// attach is how long it takes to be attached (until a line has come back), how long a line takes from then on, and how fast -n
// megabytes of lines go through the container and its log.
func (c *client) attach() error {
	p, err := c.pod("attach", 0)
	if err != nil {
		return err
	}
	id, err := p.createWith(&cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c0"}, Command: []string{"cat"}, Stdin: true,
		LogPath: "c0.log"})
	if err == nil {
		err = p.start(id)
	}
	if err != nil {
		return err
	}
	var first, next times
	for i := 0; i < 23; i++ {
		begin := time.Now()
		a, err := c.attachPipes(id)
		if err == nil {
			err = a.echo()
		}
		if err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		if i >= 3 {
			first = append(first, time.Since(begin))
		}
		for k := 0; k < 20; k++ {
			begin = time.Now()
			if err = a.echo(); err != nil {
				return fmt.Errorf("attach: %w", err)
			}
			if i >= 3 {
				next = append(next, time.Since(begin))
			}
		}
		a.end()
	}
	first.say("attach")
	next.say("line")
	if err = c.leanAttaches(id); err != nil {
		return err
	}
	out := &counter{want: *number * megabyte, done: make(chan struct{})}
	// It must stay open: the end of its input would end the container.
	open, keep := io.Pipe()
	defer keep.Close()
	begin := time.Now()
	stop, over, err := c.attachTo(id, io.MultiReader(&lines{left: out.want}, open), out)
	if err != nil {
		return err
	}
	defer stop()
	select {
	case <-out.done:
	case err = <-over:
		return fmt.Errorf("attach ended early, with %d of %d bytes: %w", out.have, out.want, err)
	case <-time.After(2 * time.Minute):
		return errors.New("attach: not all came back within two minutes")
	}
	seconds := time.Since(begin).Seconds()
	say(map[string]any{"measure": "data", "seconds": seconds, "mb_per_s": float64(*number) / seconds})
	return p.end()
}

// echoServer gives back what it gets; the pod is in the host's network, so its ports are ours.
func echoServer() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
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
	return listener, nil
}

// forwarder makes connections to a port over one SPDY connection, as kubectl does.
type forwarder struct {
	conn httpstream.Connection
	port string
	lock sync.Mutex
	next int
}

func (c *client) forwarder(p *pod, port int) (*forwarder, error) {
	answer, err := c.run.PortForward(c.ctx, &cri.PortForwardRequest{PodSandboxId: p.id, Port: []int32{int32(port)}})
	if err != nil {
		return nil, fmt.Errorf("PortForward: %w", err)
	}
	u, err := url.Parse(answer.Url)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		return nil, err
	}
	conn, _, err := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u).Dial("portforward.k8s.io")
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	return &forwarder{conn: conn, port: fmt.Sprint(port)}, nil
}

func (f *forwarder) dial() (httpstream.Stream, error) {
	f.lock.Lock()
	id := fmt.Sprint(f.next)
	f.next++
	f.lock.Unlock()
	headers := http.Header{}
	headers.Set("port", f.port)
	headers.Set("requestID", id)
	headers.Set("streamType", "error")
	failures, err := f.conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	failures.Close()
	headers.Set("streamType", "data")
	data, err := f.conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	go func() {
		if text, _ := io.ReadAll(failures); len(text) > 0 {
			data.Reset()
		}
		f.conn.RemoveStreams(failures)
	}()
	return data, nil
}

func ping(s io.ReadWriter) error {
	var back [64]byte
	if _, err := s.Write(back[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(s, back[:])
	return err
}

const forwarded = 10 // connections at a time

// forward is how long a new connection takes to its first answer, how long a question takes on each of ten that are open at the
// same time, and how fast these ten carry -n megabytes to an echo and back.
func (c *client) forward() error {
	server, err := echoServer()
	if err != nil {
		return err
	}
	defer server.Close()
	p, _, err := c.idle("forward", 0)
	if err != nil {
		return err
	}
	f, err := c.forwarder(p, server.Addr().(*net.TCPAddr).Port)
	if err != nil {
		return err
	}
	defer f.conn.Close()
	var connect times
	for i := 0; i < 53; i++ {
		begin := time.Now()
		s, err := f.dial()
		if err == nil {
			err = ping(s)
		}
		if err != nil {
			return fmt.Errorf("port-forward: %w", err)
		}
		if i >= 3 {
			connect = append(connect, time.Since(begin))
		}
		s.Close()
		io.Copy(io.Discard, s)
		f.conn.RemoveStreams(s)
	}
	connect.say("connect")
	if err = c.leanForwards(p, server.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	open := make([]httpstream.Stream, forwarded)
	for i := range open {
		if open[i], err = f.dial(); err == nil {
			err = ping(open[i])
		}
		if err != nil {
			return fmt.Errorf("port-forward: %w", err)
		}
	}
	if err = questions(open); err != nil {
		return fmt.Errorf("port-forward: %w", err)
	}
	begin := time.Now()
	if err = carry(open, *number*megabyte/forwarded); err != nil {
		return fmt.Errorf("port-forward: %w", err)
	}
	seconds := time.Since(begin).Seconds()
	say(map[string]any{"measure": "data", "seconds": seconds, "mb_per_s": float64(*number) / seconds})
	return p.end()
}

func questions(open []httpstream.Stream) error {
	var lock sync.Mutex
	var took times
	err := workers(len(open), len(open), func(i int) error {
		for k := 0; k < 50; k++ {
			begin := time.Now()
			if err := ping(open[i]); err != nil {
				return err
			}
			lock.Lock()
			took = append(took, time.Since(begin))
			lock.Unlock()
		}
		return nil
	})
	if err == nil {
		took.say("question")
	}
	return err
}

func carry(open []httpstream.Stream, size int) error {
	return workers(len(open), len(open), func(i int) error {
		failed := make(chan error, 1)
		go func() {
			_, err := io.Copy(open[i], &lines{left: size})
			failed <- err
		}()
		n, err := io.CopyN(io.Discard, open[i], int64(size))
		if err != nil {
			return fmt.Errorf("%d of %d bytes came back: %w", n, size, err)
		}
		return <-failed
	})
}

// running is pods with running containers until there are -n.
func (c *client) running() error {
	return workers(4, (*number+*perPod-1) / *perPod, func(i int) error {
		p, err := c.pod("running", i)
		for k := 0; err == nil && k < min(*perPod, *number-i**perPod); k++ {
			var id string
			if id, err = p.create(k, nil, "sleep", "100000"); err == nil {
				err = p.start(id)
			}
		}
		return err
	})
}

// stats is ListContainerStats of at least -c containers, -n times with -pause between them.
func (c *client) stats() error {
	var took times
	for i := 0; i < *number+1; i++ {
		begin := time.Now()
		answer, err := c.run.ListContainerStats(c.ctx, &cri.ListContainerStatsRequest{})
		if err != nil {
			return fmt.Errorf("ListContainerStats: %w", err)
		}
		if i > 0 { // the first one warms up
			took = append(took, time.Since(begin))
		}
		known := 0
		for _, s := range answer.Stats {
			if s.Cpu != nil && s.Memory != nil {
				known++
			}
		}
		if known < *inFlight {
			return fmt.Errorf("ListContainerStats: figures of %d containers, not of %d", known, *inFlight)
		}
		time.Sleep(*pause)
	}
	took.say("stats")
	return nil
}
