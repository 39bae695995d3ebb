package server

import (
	"crypto/tls"
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/hoopctl/hoopctl/policy"
)

// Resolve returns the configuration with its defaults filled in, checked as far
// as that is possible without opening state, evidence or ports: fields,
// recipients, the certificate's files, and the folder of resources, which must
// parse and compile together.
func (c Config) Resolve() (Config, error) {
	if err := c.complete(); err != nil {
		return c, err
	}
	var errs []error
	for i, r := range c.Evidence.Recipients {
		if _, err := age.ParseX25519Recipient(r); err != nil {
			errs = append(errs, fmt.Errorf("evidence.recipients[%d]: %w", i, err))
		}
	}
	if c.TLS.CertFile != "" || c.TLS.KeyFile != "" {
		if _, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile); err != nil {
			errs = append(errs, fmt.Errorf("tls: %w", err))
		}
	}
	return c, errors.Join(append(errs, c.checkResources())...)
}

func (c Config) checkResources() error {
	files := c.ResourceFiles
	if c.Resources != "" {
		more, err := readFolder(c.Resources)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	var all []policy.Resource
	var errs []error
	for _, f := range files {
		found, err := policy.ParseResources(f.Name, []byte(f.Content))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, found...)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	_, err := policy.Compile(all)
	return err
}
