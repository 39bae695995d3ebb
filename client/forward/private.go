package forward

import (
	"context"
	"net"

	"github.com/hoopctl/hoopctl/server/tunnel"
)

// Private is a forward that listens nowhere: whoever holds it dials. It is
// safe for concurrent use.
type Private struct {
	dialer              Dialer
	grant, id, verifier string
	secret              string
}

// NewPrivate makes a forward for this process alone.
func NewPrivate(d Dialer, grant string) (*Private, error) {
	p := &Private{dialer: d, grant: grant, id: newID(), secret: newSecret()}
	var err error
	p.verifier, err = tunnel.Verifier(p.secret)
	return p, err
}

// Dial opens a tunnel connection; a refusal by the server is an *api.Error.
func (p *Private) Dial(ctx context.Context) (net.Conn, error) {
	return p.dialer.Dial(ctx, p.grant, p.id, p.verifier)
}

// Secret is what must be shown on the connections that Dial opens.
func (p *Private) Secret() string { return p.secret }
