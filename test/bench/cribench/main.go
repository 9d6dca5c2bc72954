// SPDX-License-Identifier: Apache-2.0

// cribench drives a CRI runtime over its unix socket, as kubelet does, and says how long it took: one line of JSON a measure.
// What an RPC costs the server is not measured here: this client costs more than a fast server does (bench.py uses h2load).
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const usage = `cribench -sock PATH [options] VERB

  info           wait for the runtime, pull the image if it is missing, make each call that bench.py repeats, say who answers
  pull           pull the image
  lifecycle      -n pods with one container: run, create, start, stop, remove, one after another
  parallel       -n such lifecycles, -c at a time
  exec           -n times ExecSync of "true" in one container
  pods           -n pods with one idle container, left running
  fill           create containers, -perpod in each pod, until there are -n or -limit is over
  stream-exec    -n times "true" by Exec, over -protocol
  stream-data    -n megabytes into "cat" by Exec and out again
  attach         a container's standard streams: until attached, a line there and back, -n megabytes there and back
  forward        a pod's port: a new connection, a question on each of ten, -n megabytes to an echo and back over ten
  running        -n running containers, -perpod in each pod
  stats          -n times the stats of at least -c running containers
  log            a container that writes -n lines of 100 bytes; until all are in its log file
  clean          remove the pods that cribench made
`

var (
	socket    = flag.String("sock", "", "the runtime's unix socket, an absolute path")
	image     = flag.String("image", "registry.k8s.io/e2e-test-images/busybox:1.29-2", "an image with sleep and true")
	logs      = flag.String("logs", "", "folder for the pods' logs")
	parent    = flag.String("cgroup-parent", "", "the pods' cgroup_parent")
	writer    = flag.String("writer", "", "a static program that writes the lines (log)")
	delay     = flag.Int("delay", 0, "seconds that the writer waits before its first line (log)")
	number    = flag.Int("n", 20, "how many")
	inFlight  = flag.Int("c", 16, "how many at a time (parallel)")
	perPod    = flag.Int("perpod", 20, "containers in a pod (fill)")
	limit     = flag.Duration("limit", time.Minute, "when to stop filling (fill)")
	protocol  = flag.String("protocol", "spdy", "or websocket (stream-exec, stream-data, attach)")
	pause     = flag.Duration("pause", 0, "between two calls (stats)")
	namespace = "cribench"
	started   = time.Now().UnixNano()
)

type client struct {
	ctx    context.Context
	run    cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

func dial() (*client, error) {
	conn, err := grpc.NewClient("unix://"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	return &client{context.Background(), cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)}, nil
}

func say(measure map[string]any) {
	line, err := json.Marshal(measure)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// times collects how long each step took.
type times []time.Duration

func (t times) say(name string) {
	sort.Slice(t, func(i, j int) bool { return t[i] < t[j] })
	at := func(part float64) float64 { return float64(t[int(float64(len(t)-1)*part+0.5)].Nanoseconds()) / 1e6 }
	say(map[string]any{"measure": name, "n": len(t), "p50_ms": at(.5), "p99_ms": at(.99)})
}

// pod is a sandbox in the host's network: without a network plugin's work, which is not the runtime's own.
type pod struct {
	c      *client
	id     string
	config *cri.PodSandboxConfig
}

var hostNetwork = &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}

func (c *client) pod(kind string, i int) (*pod, error) {
	name := fmt.Sprintf("%s-%d-%d", kind, started, i)
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: namespace},
		LogDirectory: filepath.Join(*logs, name),
		Labels:       map[string]string{namespace: "1"},
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: *parent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: hostNetwork}},
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	answer, err := c.run.RunPodSandbox(c.ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, fmt.Errorf("RunPodSandbox: %w", err)
	}
	return &pod{c, answer.PodSandboxId, config}, nil
}

func (p *pod) create(i int, mounts []*cri.Mount, command ...string) (string, error) {
	return p.createWith(&cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: fmt.Sprintf("c%d", i)},
		Command:  command,
		Mounts:   mounts,
		LogPath:  fmt.Sprintf("c%d.log", i),
	})
}

func (p *pod) createWith(config *cri.ContainerConfig) (string, error) {
	config.Image = &cri.ImageSpec{Image: *image}
	config.Labels = map[string]string{namespace: "1"}
	config.Linux = &cri.LinuxContainerConfig{
		SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: hostNetwork}}
	answer, err := p.c.run.CreateContainer(p.c.ctx,
		&cri.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		return "", fmt.Errorf("CreateContainer: %w", err)
	}
	return answer.ContainerId, nil
}

func (p *pod) start(container string) error {
	if _, err := p.c.run.StartContainer(p.c.ctx, &cri.StartContainerRequest{ContainerId: container}); err != nil {
		return fmt.Errorf("StartContainer: %w", err)
	}
	return nil
}

func (p *pod) stop() error {
	if _, err := p.c.run.StopPodSandbox(p.c.ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return fmt.Errorf("StopPodSandbox: %w", err)
	}
	return nil
}

func (p *pod) remove() error {
	if _, err := p.c.run.RemovePodSandbox(p.c.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return fmt.Errorf("RemovePodSandbox: %w", err)
	}
	return os.RemoveAll(p.config.LogDirectory)
}

func (p *pod) end() error {
	if err := p.stop(); err != nil {
		return err
	}
	return p.remove()
}

// idle is a pod with one container that does nothing; also its id.
func (c *client) idle(kind string, i int) (*pod, string, error) {
	p, err := c.pod(kind, i)
	if err != nil {
		return nil, "", err
	}
	id, err := p.create(0, nil, "sleep", "100000")
	if err != nil {
		return nil, "", err
	}
	return p, id, p.start(id)
}

func (c *client) count() (int, error) {
	answer, err := c.run.ListContainers(c.ctx, &cri.ListContainersRequest{})
	if err != nil {
		return 0, fmt.Errorf("ListContainers: %w", err)
	}
	return len(answer.Containers), nil
}

func (c *client) pull() error {
	begin := time.Now()
	if _, err := c.images.PullImage(c.ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: *image}}); err != nil {
		return fmt.Errorf("PullImage: %w", err)
	}
	say(map[string]any{"measure": "pull", "ms": float64(time.Since(begin).Microseconds()) / 1e3})
	return nil
}

func (c *client) info() error {
	var version *cri.VersionResponse
	var err error
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if version, err = c.run.Version(c.ctx, &cri.VersionRequest{}); err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("Version: %w", err)
		}
	}
	if _, err = c.run.Status(c.ctx, &cri.StatusRequest{}); err != nil {
		return fmt.Errorf("Status: %w", err)
	}
	containers, err := c.count()
	if err != nil {
		return err
	}
	status, err := c.images.ImageStatus(c.ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: *image}})
	if err != nil {
		return fmt.Errorf("ImageStatus: %w", err)
	}
	say(map[string]any{"measure": "info", "runtime": version.RuntimeName, "version": version.RuntimeVersion,
		"containers": containers, "image": status.Image != nil})
	return nil
}

var steps = []string{"RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox", "RemovePodSandbox", "total"}

// lifecycle is what kubelet does for a pod with one container, and how long each of the steps took.
func (c *client) lifecycle(i int) ([]time.Duration, error) {
	begin := time.Now()
	last := begin
	var took []time.Duration
	lap := func() {
		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
	}
	p, err := c.pod("life", i)
	if err != nil {
		return nil, err
	}
	lap()
	id, err := p.create(0, nil, "sleep", "100000")
	if err != nil {
		return nil, err
	}
	lap()
	if err = p.start(id); err != nil {
		return nil, err
	}
	lap()
	if err = p.stop(); err != nil {
		return nil, err
	}
	lap()
	if err = p.remove(); err != nil {
		return nil, err
	}
	lap()
	return append(took, time.Since(begin)), nil
}

func (c *client) lifecycles() error {
	all := make([]times, len(steps))
	for i := 0; i < *number+1; i++ {
		took, err := c.lifecycle(i)
		if err != nil {
			return err
		}
		if i == 0 { // the first one warms up
			continue
		}
		for step := range steps {
			all[step] = append(all[step], took[step])
		}
	}
	for step, name := range steps {
		all[step].say(name)
	}
	return nil
}

// workers runs work(0), work(1)... count times, some at a time, up to the first error.
func workers(at, count int, work func(i int) error) error {
	var lock sync.Mutex
	var failed error
	var all sync.WaitGroup
	next := 0
	for range at {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				lock.Lock()
				i := next
				next++
				over := i >= count || failed != nil
				lock.Unlock()
				if over {
					return
				}
				if err := work(i); err != nil {
					lock.Lock()
					failed = err
					lock.Unlock()
				}
			}
		}()
	}
	all.Wait()
	return failed
}

func (c *client) parallel() error {
	begin := time.Now()
	err := workers(*inFlight, *number, func(i int) error { _, err := c.lifecycle(i); return err })
	if err == nil {
		say(map[string]any{"measure": "parallel", "n": *number, "per_s": float64(*number) / time.Since(begin).Seconds()})
	}
	return err
}

func (c *client) exec() error {
	p, id, err := c.idle("exec", 0)
	if err != nil {
		return err
	}
	var took times
	for i := 0; i < *number+3; i++ {
		begin := time.Now()
		answer, err := c.run.ExecSync(c.ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}, Timeout: 10})
		if err != nil {
			return fmt.Errorf("ExecSync: %w", err)
		}
		if answer.ExitCode != 0 {
			return fmt.Errorf("ExecSync: true exited with %d: %s", answer.ExitCode, answer.Stderr)
		}
		if i >= 3 {
			took = append(took, time.Since(begin))
		}
	}
	took.say("ExecSync")
	return p.end()
}

func (c *client) pods() error {
	return workers(2, *number, func(i int) error { _, _, err := c.idle("idle", i); return err })
}

func (c *client) fill() error {
	have, err := c.count()
	if err != nil {
		return err
	}
	begin := time.Now()
	missing := max(*number-have, 0)
	err = workers(4, (missing+*perPod-1) / *perPod, func(i int) error {
		if time.Since(begin) > *limit {
			return nil
		}
		p, err := c.pod("fill", i)
		for k := 0; err == nil && k < min(*perPod, missing-i**perPod); k++ {
			_, err = p.create(k, nil, "sleep", "100000")
		}
		return err
	})
	if err != nil {
		return err
	}
	if have, err = c.count(); err == nil {
		say(map[string]any{"measure": "fill", "containers": have, "seconds": time.Since(begin).Seconds()})
	}
	return err
}

// The writer's last line, which is not one of the counted.
const lastLine = "the end\n"

// ended tells whether the log file has its last line.
func ended(file *os.File) bool {
	end := make([]byte, len(lastLine))
	info, err := file.Stat()
	if err != nil || info.Size() < int64(len(end)) {
		return false
	}
	_, err = file.ReadAt(end, info.Size()-int64(len(end)))
	return err == nil && string(end) == lastLine
}

// checkLog holds that every line is there, in order: each begins with its number.
func checkLog(file *os.File) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	lines, expected := bufio.NewReaderSize(file, 1<<20), 0
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		fields := bytes.SplitN(line, []byte(" "), 4) // time, stream, tag, text
		if len(fields) != 4 {
			return fmt.Errorf("line %d of the log is no CRI log line: %q", expected, line)
		}
		if string(fields[3]) == lastLine {
			break
		}
		if found, err := strconv.Atoi(string(fields[3][:min(10, len(fields[3]))])); err != nil || found != expected || len(fields[3]) != 100 {
			return fmt.Errorf("line %d of the log is %q", expected, line)
		}
		expected++
	}
	if expected != *number {
		return fmt.Errorf("the log has %d of %d lines", expected, *number)
	}
	return nil
}

func (c *client) log() error {
	p, err := c.pod("log", 0)
	if err != nil {
		return err
	}
	mounts := []*cri.Mount{{HostPath: *writer, ContainerPath: "/lines", Readonly: true}}
	id, err := p.create(0, mounts, "/lines", strconv.Itoa(*number), strconv.Itoa(*delay))
	if err != nil {
		return err
	}
	begin := time.Now().Add(time.Duration(*delay) * time.Second)
	if err = p.start(id); err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(p.config.LogDirectory, "c0.log"))
	if err != nil {
		return err
	}
	defer file.Close()
	for end := begin.Add(2 * time.Minute); !ended(file); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the log is not complete after two minutes")
		}
	}
	seconds := time.Since(begin).Seconds()
	if err = checkLog(file); err != nil {
		return err
	}
	say(map[string]any{"measure": "log", "lines": *number, "seconds": seconds, "mb_per_s": float64(*number) * 100 / 1e6 / seconds})
	return p.end()
}

func (c *client) clean() error {
	answer, err := c.run.ListPodSandbox(c.ctx,
		&cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: map[string]string{namespace: "1"}}})
	if err != nil {
		return fmt.Errorf("ListPodSandbox: %w", err)
	}
	begin := time.Now()
	err = workers(4, len(answer.Items), func(i int) error {
		p := &pod{c: c, id: answer.Items[i].Id, config: &cri.PodSandboxConfig{
			LogDirectory: filepath.Join(*logs, answer.Items[i].Metadata.Name)}}
		return p.end()
	})
	if err == nil {
		say(map[string]any{"measure": "clean", "pods": len(answer.Items), "seconds": time.Since(begin).Seconds()})
	}
	return err
}

func main() {
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage, "\n"); flag.PrintDefaults() }
	flag.Parse()
	if *socket == "" || *logs == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	c, err := dial()
	if err == nil {
		verbs := map[string]func() error{"info": c.info, "pull": c.pull, "lifecycle": c.lifecycles, "parallel": c.parallel,
			"exec": c.exec, "stream-exec": c.execStream, "stream-data": c.execData, "attach": c.attach, "forward": c.forward,
			"running": c.running, "stats": c.stats, "pods": c.pods, "fill": c.fill, "log": c.log, "clean": c.clean}
		verb, known := verbs[flag.Arg(0)]
		if !known {
			flag.Usage()
			os.Exit(2)
		}
		err = verb()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cribench:", flag.Arg(0)+":", err)
		os.Exit(1)
	}
}
