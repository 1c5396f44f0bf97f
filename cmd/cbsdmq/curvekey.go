package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq/bus/zeromq"
)

func newCurveKeyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "curve-key FILE",
		Short: "Make a key for ZeroMQ's encryption and print its public half",
		Long: `Make a secret key for CURVE, ZeroMQ's encryption, in FILE, which only its owner
may read, and print the public key that belongs to it. If FILE is there, the public
key of that one is printed.

FILE is for the key curve_key of the section zeromq. An agent's public key is for
curve_server of its clients on other hosts, and those of the clients are lines of
the file that curve_clients of the agent names.`,
		Example: `  cbsdmq curve-key /usr/local/etc/cbsdmq/curve.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := makeKey(args[0])
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			public, err := zeromq.PublicKey(args[0])
			if err != nil {
				return err
			}
			if g.json() {
				return g.print(struct {
					Public string `json:"public"`
				}{public})
			}
			_, err = fmt.Fprintln(g.stdout, public)
			return err
		},
	}
}

func makeKey(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, secret, err := zeromq.KeyPair()
	if err == nil {
		_, err = fmt.Fprintf(f, "# a secret key of ZeroMQ's CURVE\n%s\n", secret)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(file)
	}
	return err
}
