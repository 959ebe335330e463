package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// Longer than the agent may take to find that a process has ended, and than a certificate of the tests lives until its renewal.
const heirReads = 45 * time.Second

const inherited = 3

// heir is the first process of the pod, so that the pod outlives the process that connects.
func heir(context.Context, []string) error { return supervise("heir-parent") }

func late(context.Context, []string) error { return supervise("late-parent") }

func supervise(command string) error {
	child := exec.Command("/proc/self/exe", command)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	for {
		_, err := syscall.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			return nil
		case err != nil && !errors.Is(err, syscall.EINTR):
			return err
		}
	}
}

// heirParent holds a stream with an SVID, leaves its connection to a child, and exits.
func heirParent(ctx context.Context, _ []string) error {
	connection, err := streaming(ctx)
	if err != nil {
		return err
	}
	return bequeath(connection, "heir-child")
}

// lateParent only connects: the child makes the first call, when the process that the kernel named is gone.
func lateParent(ctx context.Context, _ []string) error {
	connection, err := connect(ctx)
	if err != nil {
		return err
	}
	return bequeath(connection, "late-child")
}

func bequeath(connection net.Conn, command string) error {
	file, err := connection.(*net.UnixConn).File()
	if err != nil {
		return err
	}
	child := exec.Command("/proc/self/exe", command)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

// streaming returns the connection of a stream that has had its first SVID.
func streaming(ctx context.Context) (net.Conn, error) {
	connections, updates := make(chan net.Conn, 1), make(chan struct{}, 1)
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		connection, err := connect(ctx)
		if err == nil {
			connections <- connection
		}
		return connection, err
	}
	client, err := workloadapi.New(ctx, workloadapi.WithDialOptions(grpc.WithContextDialer(dialer)))
	if err != nil {
		return nil, err
	}
	go func() { _ = client.WatchX509Context(ctx, told{watcher{}, updates}) }()
	select {
	case <-updates:
		return <-connections, nil
	case <-time.After(callTimeout):
		return nil, errors.New("no SVID came")
	}
}

type told struct {
	watcher
	updates chan struct{}
}

func (t told) OnX509ContextUpdate(update *workloadapi.X509Context) {
	t.watcher.OnX509ContextUpdate(update)
	select {
	case t.updates <- struct{}{}:
	default:
	}
}

func heirChild(context.Context, []string) error {
	connection, err := net.FileConn(os.NewFile(inherited, "inherited"))
	if err != nil {
		return err
	}
	parent := os.Getppid()
	for os.Getppid() == parent && parent != 1 {
		time.Sleep(time.Millisecond)
	}
	return readAll("heir", connection)
}

func lateChild(ctx context.Context, _ []string) error {
	connection, err := net.FileConn(os.NewFile(inherited, "inherited"))
	if err != nil {
		return err
	}
	parent := os.Getppid()
	for os.Getppid() == parent && parent != 1 {
		time.Sleep(time.Millisecond)
	}
	given := false
	dialer := func(context.Context, string) (net.Conn, error) {
		if given {
			return nil, errors.New("the inherited connection has ended")
		}
		given = true
		return connection, nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	svids, err := workloadapi.FetchX509SVIDs(call, workloadapi.WithDialOptions(grpc.WithContextDialer(dialer)))
	if err != nil {
		print(object{"event": "late", "error": err.Error()})
		return nil
	}
	print(object{"event": "late", "svids": describe(svids)})
	return nil
}

// readAll prints how a connection ended, and how many bytes of messages (HTTP/2 DATA, RFC 9113 §6.1) came before.
func readAll(event string, connection net.Conn) error {
	const frameHeader, typeData = 9, 0
	start := time.Now()
	if err := connection.SetReadDeadline(start.Add(heirReads)); err != nil {
		return err
	}
	raw, err := io.ReadAll(connection)
	end := "closed"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		end = "open"
	}
	data := 0
	for rest := raw; len(rest) >= frameHeader; {
		length := int(binary.BigEndian.Uint32(append([]byte{0}, rest[:3]...)))
		if rest[3] == typeData {
			data += length
		}
		rest = rest[min(len(rest), frameHeader+length):]
	}
	print(object{"event": event, "end": end, "dataBytes": data, "bytes": len(raw), "afterMs": ms(time.Since(start))})
	return nil
}

// pass leaves a connection with an SVID on its stream to whoever listens at a path, and ends.
func pass(ctx context.Context, arguments []string) error {
	connection, err := streaming(ctx)
	if err != nil {
		return err
	}
	file, err := connection.(*net.UnixConn).File()
	if err != nil {
		return err
	}
	receiver, err := dialUntil(ctx, arguments[0])
	if err != nil {
		return err
	}
	_, _, err = receiver.WriteMsgUnix([]byte{0}, unix.UnixRights(int(file.Fd())), nil)
	print(object{"event": "passed"})
	return err
}

func dialUntil(ctx context.Context, path string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		connection, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return connection.(*net.UnixConn), nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func receive(_ context.Context, arguments []string) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: arguments[0], Net: "unix"})
	if err != nil {
		return err
	}
	defer listener.Close()
	print(object{"event": "receiving"})
	sender, err := listener.AcceptUnix()
	if err != nil {
		return err
	}
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := sender.ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return errors.New("no descriptor came")
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	connection, err := net.FileConn(os.NewFile(uintptr(descriptors[0]), "received"))
	if err != nil {
		return err
	}
	// The sender's end of this is closed when it has ended.
	if _, err := io.Copy(io.Discard, sender); err != nil {
		return err
	}
	return readAll("received", connection)
}

// cgroup needs the machine's cgroup file system at /cgroup, writable, which only a privileged pod has.
func cgroup(ctx context.Context, arguments []string) error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	entered := 0
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, own, _ := strings.Cut(rest, ":")
		if enter(filepath.Join(hierarchy(controllers), own), "pod"+arguments[0], strings.Repeat("ab", 32)) == nil {
			entered++
		}
	}
	after, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	print(object{"event": "moved", "entered": entered, "cgroup": string(after)})
	return once(ctx, nil)
}

// hierarchy is the directory of a line's controllers: "memory" of v1, "name=systemd", or "" of v2.
func hierarchy(controllers string) string {
	if controllers != "" {
		return filepath.Join("/cgroup", strings.TrimPrefix(controllers, "name="))
	}
	if _, err := os.Stat("/cgroup/unified"); err == nil {
		return "/cgroup/unified"
	}
	return "/cgroup"
}

// enter moves this process into new cgroups, one in the other, below one that is there. A new cpuset of v1 is empty, and a process
// cannot be in an empty one.
func enter(directory string, names ...string) error {
	for _, name := range names {
		child := filepath.Join(directory, name)
		if err := os.Mkdir(child, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		for _, set := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(directory, set)); err == nil {
				_ = os.WriteFile(filepath.Join(child, set), value, 0o644)
			}
		}
		directory = child
	}
	return os.WriteFile(filepath.Join(directory, "cgroup.procs"), []byte("0"), 0o644)
}
