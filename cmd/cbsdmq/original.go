package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/config"
)

// What the original programs do by default.
const (
	originalConfig  = "config.json"
	originalCBSDEnv = "/usr/jails"
	originalBroker  = "beanstalkd"
)

// connectLimit is how long the client tries to hand its job to a broker: long
// enough for a restart of the broker.
const connectLimit = 30 * time.Second

// parseOriginal reads the flags of an original program, with one dash or two.
// done says that the program ends with status.
func (g *globals) parseOriginal(fs *flag.FlagSet, args []string) (status int, done bool) {
	fs.SetOutput(g.stderr)
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return cbsdmq.ExitOK, true
	case err != nil:
		return cbsdmq.ExitRefused, true // it has printed the error and the usage
	case fs.NArg() > 0:
		fmt.Fprintf(g.stderr, "unexpected argument: %s\n", fs.Arg(0))
		fs.Usage()
		return cbsdmq.ExitRefused, true
	}
	return 0, false
}

// originalAgent is the program when it is called bs_router or cbsd-mq-router.
func (g *globals) originalAgent(name string, args []string) int {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	file := fs.String("config", originalConfig, "configuration `file`")
	o := agentOptions{}
	fs.StringVar(&o.CBSDEnv, "cbsdenv", originalCBSDEnv, "workdir of CBSD, where the file names none")
	fs.StringVar(&o.Broker, "broker", originalBroker, "section of the broker, where the file names none")
	if status, done := g.parseOriginal(fs, args); done {
		return status
	}
	o.Configs = []string{*file}
	if err := serveAgent(context.Background(), o); err != nil {
		return g.fail(&exitError{status: cbsdmq.ExitFailure, err: err})
	}
	return cbsdmq.ExitOK
}

// originalClient is the program when it is called bs_router-client. Its stdout
// is the original's to the byte.
func (g *globals) originalClient(name string, args []string) int {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	file := fs.String("config", originalConfig, "configuration `file`")
	body := fs.String("body", "", "`JSON` of the job")
	var limit timeFlag
	fs.Var(&limit, "timeout", "give up waiting after this `time`, such as 90s; 0 waits for ever")
	if status, done := g.parseOriginal(fs, args); done {
		return status
	}
	if *body == "" {
		fmt.Fprintln(g.stderr, "flag needed: -body")
		fs.Usage()
		return cbsdmq.ExitRefused
	}
	ctx := context.Background()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(limit))
		defer cancel()
	}
	return g.fail(g.sendOriginal(ctx, *file, *body))
}

// sendOriginal puts body on the tube of the configuration as it is, prints the
// Message of each reply, and returns how the job ended as an exitError.
func (g *globals) sendOriginal(ctx context.Context, file, body string) error {
	job, err := cbsdmq.ParseJob([]byte(body))
	if err != nil {
		return fmt.Errorf("-body: %w", err)
	}
	c, warnings, err := config.Load(file)
	for _, w := range warnings {
		warn(g.stderr, "%s", w)
	}
	if err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	fmt.Fprintf(g.stdout, "Using config file: %s\n", file)

	section := c.Buses()[0]
	b, closer, err := (&all.Opener{ClientOnly: true, Log: g.log()}).Open(ctx, section.Kind, section.Config)
	if err != nil {
		return err
	}
	defer closer.Close()
	id, err := putOriginal(ctx, b, section.Tube, body)
	if err != nil {
		return err
	}
	if job.JobID != 0 {
		id = job.JobID
	}
	mailbox := bus.MailboxName(section.ReplyTubePrefix, id)
	fmt.Fprintf(g.stdout, "got id: %d,callback queue name: %s\n", id, mailbox)
	last, err := printReplies(ctx, b, mailbox, g.stdout)
	if err != nil {
		return err
	}
	for _, w := range last.Warnings {
		warn(g.stderr, "%s", w)
	}
	status := statusOf(last.ErrCode)
	if last.Reason == "" || status == cbsdmq.ExitOK {
		return exit(status)
	}
	why := &cbsdmq.Error{Err: fmt.Errorf("%s: %s", last.State, last.Reason), Hint: last.Hint}
	return &exitError{status: status, err: why}
}

func putOriginal(ctx context.Context, b *bus.Bus, tube, body string) (id uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	r := b.Put(ctx, bus.Message{Tube: bus.Tube{Name: tube}, Body: []byte(body)})[0]
	_, refused := errors.AsType[*bus.Permanent](r.Err)
	switch {
	case r.Err == nil:
		return r.ID, nil
	case errors.Is(r.Err, bus.ErrTooLarge):
		return 0, cbsdmq.Errorf(cbsdmq.CodeRefused, "-body", "%w", r.Err)
	case errors.Is(r.Err, bus.ErrFull):
		return 0, cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "%s at %s: the job was not submitted: %w", b.Caps().Name, b.Addr(), r.Err).
			WithHint("make room for the broker, then submit it again")
	case refused, cbsdmq.CodeOf(r.Err) == cbsdmq.CodeUnreachable:
		return 0, r.Err // nothing was sent
	}
	return 0, cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "%s at %s may have the job or not: %w", b.Caps().Name, b.Addr(), r.Err)
}

// printReplies prints the Message of each reply with a newline, and returns the
// last one.
func printReplies(ctx context.Context, b *bus.Bus, mailbox string, w io.Writer) (cbsdmq.Reply, error) {
	in, err := b.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: mailbox, Kind: bus.Mailbox}}})
	if err != nil {
		return cbsdmq.Reply{}, waited(ctx, err)
	}
	defer in.Close()
	for {
		ds, err := in.Receive(ctx, 1)
		if err != nil {
			return cbsdmq.Reply{}, waited(ctx, err)
		}
		// Whether the broker has forgotten a reply that was read does not matter.
		_ = in.Ack(ctx, ds...)
		for _, d := range ds {
			r, err := cbsdmq.ParseReply(d.Body)
			if err != nil {
				return cbsdmq.Reply{}, err
			}
			fmt.Fprintf(w, "%s\n", r.Output())
			if r.Final() {
				return r, nil
			}
		}
	}
}

// waited is err, which ended a wait, for people.
func waited(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "no reply within the -timeout").
		WithHint("the job may still run; its reply waits in the tube")
}

// statusOf is the exit status for the ErrCode of a reply, which comes from
// another program: an exit status has 8 bits.
func statusOf(code int) int {
	if code < 0 || code > math.MaxUint8 {
		return math.MaxUint8
	}
	return code
}
