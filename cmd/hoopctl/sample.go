package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/cmd/hoopctl/clinic"
	"github.com/hoopctl/hoopctl/cmd/hoopctl/devpg"
)

// startSample starts PostgreSQL and fills the sample database if it is not there.
func (h *house) startSample(ctx context.Context) error {
	h.say("Starting PostgreSQL.")
	config := devpg.Config{
		Dir: h.o.dir, Port: h.state.PostgresPort, Password: h.state.PostgresPassword, BinDir: h.o.pgBin,
		Say: func(format string, args ...any) { h.say("  "+format, args...) },
	}
	pg, err := devpg.Start(ctx, config)
	if err != nil && config.Port != 0 && errors.Is(err, syscall.EADDRINUSE) {
		// Nobody was promised this port; only the targets know it.
		config.Port = 0
		pg, err = devpg.Start(ctx, config)
	}
	var missing *devpg.MissingError
	if errors.As(err, &missing) {
		return withHint(err, missing.Hint())
	}
	if err != nil {
		return err
	}
	h.pg, h.state.PostgresPort = pg, pg.Port
	if err := h.fillSample(ctx); err != nil {
		pg.Stop()
		return fmt.Errorf("sample database: %w", err)
	}
	return writeJSONFile(filepath.Join(h.o.dir, "dev.json"), h.state)
}

// fillSample makes role, database and rows, each if it is missing: a kill in
// the middle is made good at the next start.
func (h *house) fillSample(ctx context.Context) error {
	admin, err := h.openSample(ctx, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	for _, step := range []struct{ probe, make string }{
		{"SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = '" + sampleOwner + "'", "CREATE ROLE " + sampleOwner + " LOGIN PASSWORD '" + h.state.ClinicPassword + "'"},
		{"SELECT 1 FROM pg_catalog.pg_database WHERE datname = '" + sampleDatabase + "'", "CREATE DATABASE " + sampleDatabase + " OWNER " + sampleOwner},
	} {
		if err := unless(ctx, admin, step.probe, step.make); err != nil {
			return err
		}
	}
	db, err := h.openSample(ctx, sampleDatabase)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	there, err := db.Run(ctx, "SELECT 1 FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('public.patients')", exec.Discard, exec.Options{})
	if err != nil || there.Rows > 0 {
		return err
	}
	h.say("  filling the sample database")
	script := append([]string{"BEGIN", "SET LOCAL ROLE " + sampleOwner, "SET LOCAL search_path = public"}, clinic.Schema()...)
	script = append(append(script, clinic.Rows()...), "COMMIT", "ANALYZE")
	for _, sql := range script {
		if _, err := db.Run(ctx, sql, exec.Discard, exec.Options{}); err != nil {
			return err
		}
	}
	return nil
}

// unless runs a statement if the probe finds no row.
func unless(ctx context.Context, c *exec.Conn, probe, sql string) error {
	r, err := c.Run(ctx, probe, exec.Discard, exec.Options{})
	if err == nil && r.Rows == 0 {
		_, err = c.Run(ctx, sql, exec.Discard, exec.Options{})
	}
	return err
}

func (h *house) openSample(ctx context.Context, database string) (*exec.Conn, error) {
	return exec.Open(ctx, exec.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", h.pg.Address())
		},
		User: "postgres", Password: h.state.PostgresPassword, Database: database, Application: "hoopctl dev",
	})
}
