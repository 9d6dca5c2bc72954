// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/spdystream/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The same streams with next to no work in the client: client-go waits for each stream's answer before it asks for the next, and
// makes two compressors a connection, which is most of the time that its users see. A lean client says in one write all that it
// has to say, so that what is measured is the server.

// lean is one connection over SPDY/3.1.
type lean struct {
	conn   net.Conn
	in     *bufio.Reader
	out    bytes.Buffer
	framer *spdy.Framer
	next   spdy.StreamId
}

// leanFramer gives one whose compressor is made before the clock starts.
func leanFramer() (*lean, error) {
	l := &lean{next: 1}
	var err error
	l.framer, err = spdy.NewFramer(&l.out, bytes.NewReader(nil))
	return l, err
}

// open is the upgrade; what is in l.out goes with it.
func (l *lean) open(address, protocol string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if l.conn, err = net.Dial("tcp", u.Host); err != nil {
		return err
	}
	upgrade := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"+
		"X-Stream-Protocol-Version: %s\r\nContent-Length: 0\r\n\r\n", u.RequestURI(), u.Host, protocol)
	if _, err = l.conn.Write([]byte(upgrade)); err != nil {
		return err
	}
	l.in = bufio.NewReaderSize(l.conn, 1<<16)
	answer, err := http.ReadResponse(l.in, nil)
	if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(answer.Status)
	}
	return err
}

// stream asks for one more, with these headers; `over`: we send nothing on it.
func (l *lean) stream(over bool, headers http.Header) (spdy.StreamId, error) {
	id := l.next
	l.next += 2
	frame := &spdy.SynStreamFrame{StreamId: id, Headers: headers}
	if over {
		frame.CFHeader.Flags = spdy.ControlFlagFin
	}
	return id, l.framer.WriteFrame(frame)
}

func (l *lean) data(id spdy.StreamId, over bool, p []byte) error {
	frame := &spdy.DataFrame{StreamId: id, Data: p}
	if over {
		frame.Flags = spdy.DataFlagFin
	}
	return l.framer.WriteFrame(frame)
}

func (l *lean) flush() error {
	_, err := l.conn.Write(l.out.Bytes())
	l.out.Reset()
	return err
}

// frame reads one: the stream and the bytes of data, or those of a control frame with stream 0.
func (l *lean) frame() (spdy.StreamId, []byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[4:])&0xffffff)
	if _, err := io.ReadFull(l.in, body); err != nil {
		return 0, nil, err
	}
	if head[0]&0x80 != 0 {
		return 0, body, nil
	}
	return spdy.StreamId(binary.BigEndian.Uint32(head[:4])), body, nil
}

// wait reads until n bytes of the stream have come.
func (l *lean) wait(id spdy.StreamId, n int) error {
	for n > 0 {
		from, data, err := l.frame()
		if err != nil {
			return err
		}
		if from == id {
			n -= len(data)
		}
	}
	return nil
}

// leanAttach is a container attached to, from the Attach call until a line has come back.
func (c *client) leanAttach(id string, l *lean) error {
	answer, err := c.run.Attach(c.ctx, &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
	if err != nil {
		return fmt.Errorf("Attach: %w", err)
	}
	if err = l.open(answer.Url, "v4.channel.k8s.io"); err != nil {
		return err
	}
	if _, err = l.stream(true, http.Header{"Streamtype": {"error"}}); err != nil {
		return err
	}
	in, err := l.stream(false, http.Header{"Streamtype": {"stdin"}})
	if err != nil {
		return err
	}
	out, err := l.stream(true, http.Header{"Streamtype": {"stdout"}})
	if err == nil {
		err = l.data(in, false, line)
	}
	if err == nil {
		err = l.flush()
	}
	if err == nil {
		err = l.wait(out, len(line))
	}
	return err
}

func (c *client) leanAttaches(id string) error {
	var took times
	for i := 0; i < 23; i++ {
		l, err := leanFramer()
		if err != nil {
			return err
		}
		begin := time.Now()
		if err = c.leanAttach(id, l); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		if i >= 3 {
			took = append(took, time.Since(begin))
		}
		l.conn.Close()
		time.Sleep(5 * time.Millisecond)
	}
	took.say("lean")
	return nil
}

// leanForwards is one more forwarded connection after another, each from its two streams to the first answer.
func (c *client) leanForwards(p *pod, port int) error {
	answer, err := c.run.PortForward(c.ctx, &cri.PortForwardRequest{PodSandboxId: p.id, Port: []int32{int32(port)}})
	if err != nil {
		return fmt.Errorf("PortForward: %w", err)
	}
	l, err := leanFramer()
	if err == nil {
		err = l.open(answer.Url, "portforward.k8s.io")
	}
	if err != nil {
		return err
	}
	defer l.conn.Close()
	var took times
	for i := 0; i < 53; i++ {
		begin := time.Now()
		headers := http.Header{"Port": {fmt.Sprint(port)}, "Requestid": {fmt.Sprint(i)}, "Streamtype": {"error"}}
		if _, err = l.stream(true, headers); err != nil {
			return err
		}
		headers["Streamtype"] = []string{"data"}
		data, err := l.stream(false, headers)
		if err == nil {
			err = l.data(data, false, line)
		}
		if err == nil {
			err = l.flush()
		}
		if err == nil {
			err = l.wait(data, len(line))
		}
		if err != nil {
			return fmt.Errorf("port-forward: %w", err)
		}
		if i >= 3 {
			took = append(took, time.Since(begin))
		}
		if err = l.data(data, true, nil); err == nil {
			err = l.flush()
		}
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond) // for the other side to be done with it
	}
	took.say("lean")
	return direct(port)
}

// direct is the same without a runtime: a connection, a line there and back.
func direct(port int) error {
	var took times
	for i := 0; i < 53; i++ {
		begin := time.Now()
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			return err
		}
		if _, err = conn.Write(line); err == nil {
			_, err = io.ReadFull(conn, make([]byte, len(line)))
		}
		if err != nil {
			return err
		}
		if i >= 3 {
			took = append(took, time.Since(begin))
		}
		conn.Close()
		time.Sleep(2 * time.Millisecond)
	}
	took.say("direct")
	return nil
}
