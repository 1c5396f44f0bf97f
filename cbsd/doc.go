// Package cbsd is the only room that knows CBSD: which commands there are and
// what they do, which arguments may reach it, what its files say about the
// guests, and whether a command did what it claims.
//
// A [Pool] is one CBSD environment. The way of a job through it:
//
//	plan, err := pool.Plan(job)           // may it run, and what does it touch
//	before, err := pool.Before(ctx, plan) // for a change: what is there now
//	... the caller runs plan.Argv with pool.Env and pool.Dir ...
//	verdict := pool.After(ctx, plan, before, exit, tail)
//	guid, disk, vnc := pool.Lookups(ctx, plan, job, verdict.Now)
//
// CBSD evaluates the values of arguments as shell, as root, answers errors
// with exit status 0 and ignores misspelt arguments. Plan refuses what it would
// evaluate; After reads the state and says what really happened.
//
// The package starts no job's command. It runs cbsd itself only to ask it
// something, with a short time limit and without a terminal.
package cbsd
