package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A server that could not write to a stream takes nothing for it any more until
// it is started again, and answers none of those who publish. So a server of ours
// is started again when its disk can be written.

const (
	roomFile    = "room"
	roomNeeded  = 8 << 20
	reviveAfter = 2 * time.Second // also between two looks
	reviveMost  = time.Minute
	reviveStart = time.Minute // for the start
)

// revive has a server started again whenever its log says that it cannot write
// to dir. stop ends that, and waits for it.
func revive(log *serverLog, dir string, restart func(context.Context) error) (stop func()) {
	ctx, end := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		pause, back := reviveAfter, time.Time{}
		for {
			select {
			case why := <-log.hurt:
				log.log.Error(log.what+" cannot write, it takes no messages", "err", why, "hint", "make room on the file system of "+dir+"; it goes on by itself")
			case <-ctx.Done():
				return
			}
			if pause = min(2*pause, reviveMost); time.Since(back) > reviveMost {
				pause = reviveAfter
			}
			for revived := false; !revived; {
				select {
				case <-time.After(pause):
				case <-ctx.Done():
					return
				}
				revived = room(dir) == nil && restart(ctx) == nil
			}
			back = time.Now()
			log.log.Info(log.what + " can write again")
		}
	}()
	return func() { end(); <-over }
}

// restart puts a new server in the place of the old one, at its address.
func (e *Embedded) restart(ctx context.Context) error {
	_, p, err := net.SplitHostPort(e.addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reviveStart)
	defer cancel()
	if err := e.stop(); err != nil {
		return err
	}
	e.log.heal()
	return e.run(ctx, port)
}

// room writes and syncs as much as a broker needs to go on, of what no file
// system makes smaller.
func room(dir string) (err error) {
	path := filepath.Join(dir, roomFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("looking for room: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), removeFile(path)) }()
	block := make([]byte, 1<<20)
	rand.Read(block) // never fails
	for range roomNeeded / len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}
