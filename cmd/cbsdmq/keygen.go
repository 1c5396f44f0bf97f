package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/senders"
)

// signKeyEnv is the environment variable that names the key to sign with.
const signKeyEnv = "CBSDMQ_SIGN_KEY"

// signer reads the key that jobs and requests for a pool are signed with, nil
// where none is named: --sign-key, the environment, the pool's file.
func (g *globals) signer(c *config.Config) (*cbsdmq.Signer, error) {
	switch env := os.Getenv(signKeyEnv); {
	case g.key != "":
		return senders.LoadSigner("--sign-key", g.key)
	case env != "":
		return senders.LoadSigner(signKeyEnv, env)
	case c.SignKey != "":
		return senders.LoadSigner("sign_key", c.SignKey)
	}
	return nil, nil
}

func newKeygenCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen [NAME] FILE",
		Short: "Make a key that signs jobs and print its public line",
		Long: `Make a secret key that signs jobs for the sender NAME, by default user@host, in
FILE, which only its owner may read. A file that is there stays as it is.

The line that is printed is for the file of senders on the pool's host (key senders
of the agent's configuration). It gives every right: write into it what the key is
for in place of the *, and add not_after=2027-03-01 for a key with an end. Then
reload the agent.

The secret key stays with the client: --sign-key FILE, the environment variable
` + signKeyEnv + `, or the key sign_key of its configuration.`,
		Example: `  cbsdmq keygen shop /usr/local/etc/cbsdmq/shop.key
  cbsdmq keygen shop shop.key >> senders
  cbsdmq run --sign-key shop.key pool1 jls`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, file := who(), args[len(args)-1]
			if len(args) == 2 {
				name = args[0]
			}
			public, err := senders.Make(name, file)
			if err != nil {
				return err
			}
			line := senders.Line(name, public)
			if g.json() {
				return g.print(struct {
					Name   string `json:"name"`
					Public string `json:"public"`
					Line   string `json:"line"`
				}{name, senders.ID(public), line})
			}
			_, err = fmt.Fprintln(g.stdout, line)
			return err
		},
	}
}
