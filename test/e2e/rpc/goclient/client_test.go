// SPDX-License-Identifier: Apache-2.0

// The gRPC layer against grpc-go, which kubelet uses. ECHO_SOCKET is where echo_server listens, ECHO_DESCRIPTORS the
// descriptors of its service: messages are made of them at run time.
package goclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const messageMax = 16 << 20

var types = map[string]protoreflect.MessageDescriptor{}

func TestMain(m *testing.M) {
	raw, err := os.ReadFile(os.Getenv("ECHO_DESCRIPTORS"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		panic(err)
	}
	for _, file := range set.File {
		if file.GetName() != "echo.proto" {
			continue
		}
		d, err := protodesc.NewFile(file, nil)
		if err != nil {
			panic(err)
		}
		for i := 0; i < d.Messages().Len(); i++ {
			types[string(d.Messages().Get(i).Name())] = d.Messages().Get(i)
		}
	}
	os.Exit(m.Run())
}

type message struct{ *dynamicpb.Message }

func newMessage(kind string, fields map[string]any) message {
	m := message{dynamicpb.NewMessage(types[kind])}
	for name, value := range fields {
		m.Set(types[kind].Fields().ByName(protoreflect.Name(name)), protoreflect.ValueOf(value))
	}
	return m
}

func request(fields map[string]any) message { return newMessage("EchoRequest", fields) }

func (m message) get(name string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

func dial(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	socket := os.Getenv("ECHO_SOCKET")
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax), grpc.MaxCallSendMsgSize(2*messageMax)),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///"+socket, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func unary(ctx context.Context, conn *grpc.ClientConn, fields map[string]any, options ...grpc.CallOption) (message, error) {
	reply := newMessage("EchoReply", nil)
	err := conn.Invoke(ctx, "/echo.v1.Echo/Unary", request(fields), reply, options...)
	return reply, err
}

func stream(t *testing.T, ctx context.Context, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/echo.v1.Echo/"+method)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Fatalf("want %v with %q, got %v", code, text, err)
	}
}

// settle waits until the server's counters are as wanted.
func settle(t *testing.T, conn *grpc.ClientConn, want map[string]int64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		reply := newMessage("CountersReply", nil)
		if err := conn.Invoke(context.Background(), "/echo.v1.Echo/Counters", newMessage("CountersRequest", nil), reply); err != nil {
			t.Fatal(err)
		}
		ok := true
		for name, value := range want {
			ok = ok && reply.get(name).Int() == value
		}
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("want %v, got %v", want, reply)
		}
	}
}

func TestUnary(t *testing.T) {
	conn := dial(t)
	reply, err := unary(within(t, 20*time.Second), conn, map[string]any{"text": "grüße", "payload": []byte{0, 1, 2}})
	if err != nil || reply.get("text").String() != "grüße" || !bytes.Equal(reply.get("payload").Bytes(), []byte{0, 1, 2}) {
		t.Fatal(reply, err)
	}
	if left := reply.get("time_left_ms").Int(); left < 15000 || left > 20000 {
		t.Fatal(left)
	}
}

func TestErrors(t *testing.T) {
	conn := dial(t)
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		_, err := unary(within(t, 20*time.Second), conn, map[string]any{"fail_code": int32(code), "text": "100% \"böse\"\n☃"})
		wantCode(t, err, code, "100% \"böse\"\n☃")
	}
	err := conn.Invoke(within(t, 20*time.Second), "/echo.v1.Echo/Nothing", request(nil), request(nil))
	wantCode(t, err, codes.Unimplemented, "unknown method Nothing")
}

// Clients in Go before 1.56 send the path of the socket as :authority.
func TestAuthorityIsAPath(t *testing.T) {
	conn := dial(t, grpc.WithAuthority("/run/interlink-cri/interlink-cri.sock"))
	if _, err := unary(within(t, 20*time.Second), conn, nil); err != nil {
		t.Fatal(err)
	}
}

func TestMetadata(t *testing.T) {
	conn := dial(t)
	sent := metadata.Pairs("x-text", "plain text", "x-raw-bin", "\x00\x01\xff,", "x-empty", "")
	var header, trailer metadata.MD
	ctx := metadata.NewOutgoingContext(within(t, 20*time.Second), sent)
	if _, err := unary(ctx, conn, map[string]any{"echo_metadata": true}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	for key, values := range sent {
		if got := header.Get(key); len(got) != 1 || got[0] != values[0] {
			t.Errorf("header %s: %q", key, got)
		}
		if got := trailer.Get(key); len(got) != 1 || got[0] != values[0] {
			t.Errorf("trailer %s: %q", key, got)
		}
	}
}

func TestStreams(t *testing.T) {
	conn := dial(t)
	s := stream(t, within(t, 60*time.Second), conn, "Generate")
	if err := errors.Join(s.SendMsg(request(map[string]any{"count": int32(1000), "size": int32(1000)})), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for i := int64(0); ; i++ {
		reply := newMessage("EchoReply", nil)
		err := s.RecvMsg(reply)
		if err == io.EOF && i == 1000 {
			break
		}
		if err != nil || reply.get("index").Int() != i {
			t.Fatal(i, reply.get("index"), err)
		}
	}
	s = stream(t, within(t, 60*time.Second), conn, "Collect")
	for i := 0; i < 1000; i++ {
		if err := s.SendMsg(request(map[string]any{"payload": make([]byte, i*100)})); err != nil {
			t.Fatal(err)
		}
	}
	reply := newMessage("CollectReply", nil)
	if err := errors.Join(s.CloseSend(), s.RecvMsg(reply)); err != nil || reply.get("bytes").Int() != 999*1000/2*100 {
		t.Fatal(reply, err)
	}
	s = stream(t, within(t, 60*time.Second), conn, "Chat")
	for i := 0; i < 100; i++ {
		reply := newMessage("EchoReply", nil)
		if err := errors.Join(s.SendMsg(request(map[string]any{"text": fmt.Sprint(i)})), s.RecvMsg(reply)); err != nil ||
			reply.get("text").String() != fmt.Sprint(i) {
			t.Fatal(i, reply, err)
		}
	}
	if err := errors.Join(s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(newMessage("EchoReply", nil)); err != io.EOF {
		t.Fatal(err)
	}
	settle(t, conn, map[string]int64{"running": 0})
}

func TestLargeMessages(t *testing.T) {
	conn := dial(t)
	largest := make([]byte, messageMax-5)
	reply, err := unary(within(t, 60*time.Second), conn, map[string]any{"payload": largest[:messageMax-50]})
	if err != nil || len(reply.get("payload").Bytes()) != messageMax-50 {
		t.Fatal(err)
	}
	_, err = unary(within(t, 60*time.Second), conn, map[string]any{"payload": append(largest, 'x')})
	wantCode(t, err, codes.ResourceExhausted, "16777217")
	if _, err := unary(within(t, 60*time.Second), conn, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDeadline(t *testing.T) {
	conn := dial(t)
	begin := time.Now()
	_, err := unary(within(t, 200*time.Millisecond), conn, map[string]any{"delay_ms": int32(5000)})
	wantCode(t, err, codes.DeadlineExceeded, "")
	if time.Since(begin) > 2*time.Second {
		t.Fatal(time.Since(begin))
	}
	settle(t, conn, map[string]int64{"running": 0, "cancelled": 1})
	_, err = unary(within(t, time.Millisecond), conn, map[string]any{"delay_ms": int32(100)})
	wantCode(t, err, codes.DeadlineExceeded, "")
}

func TestCancellation(t *testing.T) {
	conn := dial(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := unary(ctx, conn, map[string]any{"delay_ms": int32(60000)})
		done <- err
	}()
	settle(t, conn, map[string]int64{"running": 1})
	cancel()
	wantCode(t, <-done, codes.Canceled, "")
	settle(t, conn, map[string]int64{"running": 0, "cancelled": 1})
	ctx, cancel = context.WithCancel(context.Background())
	s := stream(t, ctx, conn, "Generate")
	if err := errors.Join(s.SendMsg(request(map[string]any{"count": int32(1000000), "size": int32(10000)})), s.CloseSend(),
		s.RecvMsg(newMessage("EchoReply", nil))); err != nil {
		t.Fatal(err)
	}
	cancel()
	settle(t, conn, map[string]int64{"running": 0, "cancelled": 2})
}

func Test200Streams(t *testing.T) {
	conn := dial(t)
	var all sync.WaitGroup
	begun := make(chan struct{})
	fail := make(chan error, 200)
	for n := 0; n < 200; n++ {
		all.Add(1)
		s := stream(t, within(t, 60*time.Second), conn, "Chat")
		go func() {
			defer all.Done()
			for i := 0; i < 6; i++ {
				if i == 1 {
					<-begun
				}
				text := fmt.Sprintf("%d.%d", n, i)
				reply := newMessage("EchoReply", nil)
				if err := errors.Join(s.SendMsg(request(map[string]any{"text": text, "payload": make([]byte, 5000)})),
					s.RecvMsg(reply)); err != nil || reply.get("text").String() != text {
					fail <- fmt.Errorf("%s: %v %v", text, reply.get("text"), err)
					return
				}
			}
			s.CloseSend()
			if err := s.RecvMsg(newMessage("EchoReply", nil)); err != io.EOF {
				fail <- err
			}
		}()
	}
	settle(t, conn, map[string]int64{"running": 200})
	close(begun)
	all.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	settle(t, conn, map[string]int64{"running": 0, "cancelled": 0})
}

func TestKeepalive(t *testing.T) {
	conn := dial(t, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second,
		PermitWithoutStream: true}))
	if _, err := unary(within(t, 60*time.Second), conn, map[string]any{"delay_ms": int32(11500)}); err != nil {
		t.Fatal(err)
	}
}

func TestHealthAndReflection(t *testing.T) {
	conn := dial(t)
	check, err := healthpb.NewHealthClient(conn).Check(within(t, 20*time.Second), &healthpb.HealthCheckRequest{Service: "echo.v1.Echo"})
	if err != nil || check.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatal(check, err)
	}
	s, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := s.Recv()
	if err != nil || len(answer.GetListServicesResponse().GetService()) != 4 {
		t.Fatal(answer, err)
	}
	if err := s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "echo.v1.EchoReply"}}); err != nil {
		t.Fatal(err)
	}
	answer, err = s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	file := &descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(answer.GetFileDescriptorResponse().FileDescriptorProto[0], file); err != nil || file.GetName() != "echo.proto" {
		t.Fatal(file.GetName(), err)
	}
}
