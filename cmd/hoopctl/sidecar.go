package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hoopctl/hoopctl/client"
)

const workloadUsage = "log in as a service, and again whenever that login ends: k8s, github, or a FILE (as for login)"

// againAfter is how long a service waits after a log-in that failed.
const againAfter = 10 * time.Second

// serviceLogin logs in by what the platform says of this workload; "" leaves
// the login as it is.
func (a *app) serviceLogin(ctx context.Context, workload string) error {
	if workload == "" {
		return nil
	}
	c, err := a.context()
	if err != nil {
		return err
	}
	cl, err := a.connectTo(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	enrolled, err := cl.Login(ctx, client.LoginOptions{CAFingerprint: c.CAFingerprint, CAFile: c.CAFile, Issuer: c.Issuer, Prompt: a.prompt, Workload: workload})
	if err != nil {
		return distrusted(err)
	}
	fmt.Fprintf(a.err, "Logged in to %s as %s until %s.\n", c.Server, printable(enrolled.Principal.Name), clock(a.now(), enrolled.LoginEnds))
	return nil
}

// keepLogin renews the login's certificate until ctx ends. A login that is
// over is said once, then the next one is waited for: a person's, or, with a
// workload, our own.
func (a *app) keepLogin(ctx context.Context, cl *client.Client, workload string) {
	say := a.sayOnce()
	for ctx.Err() == nil {
		err := cl.Keep(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		say(err)
		for workload != "" && ctx.Err() == nil {
			if err := a.serviceLogin(ctx, workload); err == nil {
				break
			} else if ctx.Err() == nil {
				say(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(againAfter):
			}
		}
	}
}
