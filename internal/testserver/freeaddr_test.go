package testserver

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// drawing says to a child of TestFreeAddr that it is one.
const drawing = "CBSDMQ_TEST_DRAWS_PORTS"

// Programs that run at one time are given different addresses, more of them than
// are in one block.
func TestFreeAddr(t *testing.T) {
	const many = block + 10
	if os.Getenv(drawing) != "" {
		for range many {
			fmt.Println(FreeAddr(t))
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // as long as the others need
		return
	}
	seen := map[string]bool{}
	give := func(addr string) {
		t.Helper()
		if seen[addr] {
			t.Errorf("%s was given out twice", addr)
		}
		seen[addr] = true
	}
	for range 3 {
		child := exec.Command(os.Args[0], "-test.run=^TestFreeAddr$")
		child.Env = append(os.Environ(), drawing+"=1")
		in, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			in.Close()
			_ = child.Wait()
		})
		lines := bufio.NewScanner(out)
		for range many {
			if !lines.Scan() {
				t.Fatalf("a child has ended: %v", lines.Err())
			}
			give(lines.Text())
		}
	}
	for range many {
		give(FreeAddr(t))
	}
}
