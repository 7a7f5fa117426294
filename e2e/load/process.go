package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Started is the line the load program writes before the first request.
const Started = "started"

// Process is a load program that runs somewhere else, as on a cluster's client
// host.
type Process struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer
}

// Start runs the load program that cmd stands for, with the options as its last
// argument, and returns once requests are on their way.
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("load: encode options: %w", err)
	}
	p := &Process{cmd: cmd}
	cmd.Args = append(cmd.Args, string(b))
	cmd.Stderr = &p.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	p.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("load: start: %w", err)
	}
	if line, err := p.out.ReadString('\n'); err != nil || line != Started+"\n" {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("load: did not start: %q %w\n%s", line, errors.Join(err, cmd.Wait()), p.stderr.String())
	}
	return p, nil
}

// Stop ends the load once every request on its way is answered.
func (p *Process) Stop() (*Result, error) {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("load: stop: %w", err)
	}
	return p.Wait()
}

// Wait waits for the end of a load that has a duration.
func (p *Process) Wait() (*Result, error) {
	b, err := io.ReadAll(p.out)
	if err := errors.Join(err, p.cmd.Wait()); err != nil {
		return nil, fmt.Errorf("load: %w\n%s", err, p.stderr.String())
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("load: read result: %w in %q", err, b)
	}
	return &r, nil
}
