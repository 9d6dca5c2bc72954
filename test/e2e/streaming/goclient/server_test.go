// SPDX-License-Identifier: Apache-2.0

// The client's end of our channels against Kubernetes' own servers, as other runtimes have them.
//
// Environment: CHANNEL_MAIN, the program made of channel_main.c.
package goclient

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	gorilla "github.com/gorilla/websocket"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// Sends back what comes on a stream, and its end.
func echo(stream io.ReadWriteCloser) {
	io.Copy(stream, stream)
	stream.Close()
}

func streamHandler(stream httpstream.Stream, replied <-chan struct{}) error {
	go func() {
		<-replied
		echo(stream)
	}()
	return nil
}

// Upgrades to what the program of CHANNEL_MAIN asks for.
func serveEcho(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		protocols := r.Header.Get("Sec-WebSocket-Protocol")
		switch {
		case strings.HasPrefix(protocols, "SPDY/3.1+"):
			upgrader := gorilla.Upgrader{Subprotocols: []string{protocols}}
			ws, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			conn, err := spdy.NewServerConnection(portforward.NewTunnelingConnection("server", ws), streamHandler)
			if err != nil {
				t.Error(err)
				return
			}
			<-conn.CloseChan()
		case protocols != "":
			channels := []wsstream.ChannelType{wsstream.ReadWriteChannel, wsstream.ReadWriteChannel, wsstream.ReadWriteChannel}
			conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
				"v5.channel.k8s.io":     {Binary: true, Channels: channels},
				"base64.channel.k8s.io": {Binary: false, Channels: channels},
			})
			_, streams, err := conn.Open(w, r)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range streams {
				go io.Copy(streams[i], streams[i])
			}
			select {
			case <-r.Context().Done():
			}
		default:
			conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, streamHandler)
			if conn == nil {
				t.Error("no SPDY")
				return
			}
			<-conn.CloseChan()
		}
	}
}

func TestOurClient(t *testing.T) {
	for _, carrier := range []string{"spdy", "binary", "base64", "tunnel"} {
		t.Run(carrier, func(t *testing.T) {
			server := httptest.NewServer(serveEcho(t))
			defer server.Close()
			var out bytes.Buffer
			command := exec.Command(os.Getenv("CHANNEL_MAIN"), "dial", server.Listener.Addr().String(), carrier)
			command.Stdout, command.Stderr = &out, &out
			if err := command.Run(); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
		})
	}
}
