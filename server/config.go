package server

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// Config is server.yaml. Zero fields take the defaults named here. Every field
// is also a flag of `hoopctl server` and an environment variable
// HOOPCTL_SERVER_….
type Config struct {
	Listen            string         `yaml:"listen"`            // API and tunnel; default 127.0.0.1:8443
	PostgresListen    string         `yaml:"postgresListen"`    // native PostgreSQL endpoint; "" is none
	PostgresPlaintext string         `yaml:"postgresPlaintext"` // "loopback": plaintext for loopback clients; "" never
	ExternalURL       string         `yaml:"externalURL"`       // what clients are told; default https://<listen>
	TLS               TLSConfig      `yaml:"tls"`
	Keys              string         `yaml:"keys"`       // folder of the CA's and the log's private keys (0700); default <evidence.dir>/../keys
	SecretsDir        string         `yaml:"secretsDir"` // files that passwordFrom may name lie below it; "" with Dev: anywhere
	Store             string         `yaml:"store"`      // sqlite:PATH
	Evidence          EvidenceConfig `yaml:"evidence"`
	Issuers           []IssuerConfig `yaml:"issuers"`
	Resources         string         `yaml:"resources"` // folder of resources, loaded at start
	Name              string         `yaml:"name"`      // of this server in the evidence; default the host's name
	MetricsListen     string         `yaml:"metricsListen"`

	// ResourceFiles are resources handed in by the program, as if they lay in a
	// folder beside Resources.
	ResourceFiles []api.File `yaml:"-"`
	// Version is what Info tells clients.
	Version string `yaml:"-"`
	// Dev relaxes what only `hoopctl dev` may: password files anywhere.
	Dev bool `yaml:"-"`
	// Log is where the server speaks; nil is silence.
	Log *slog.Logger `yaml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
	// ParserCommand starts the SQL parser's child process; nil is this
	// executable with the argument __parse.
	ParserCommand []string `yaml:"-"`
	// ParserCache is the folder of the parser's compiled code, which makes
	// starts fast; default beside the keys. Nobody else may write to it.
	ParserCache string `yaml:"parserCache"`
}

// TLSConfig is the server's own certificate for names that its CA's
// certificate does not serve; both empty: the server's own CA signs one.
type TLSConfig struct {
	CertFile string   `yaml:"certFile"`
	KeyFile  string   `yaml:"keyFile"`
	Names    []string `yaml:"names"` // DNS names and addresses in our own certificate, besides localhost and the listen address
}

// EvidenceConfig says where the evidence lies and who may read recordings.
type EvidenceConfig struct {
	Dir        string   `yaml:"dir"`
	Spill      string   `yaml:"spill"`      // a folder on another volume, used while dir's takes nothing more; "" is none
	Recipients []string `yaml:"recipients"` // age X25519 recipients of the auditors
	// Witnesses cosign the log's head every 10 s if it grew, and when the server
	// stops. They should be in other hands than the server.
	Witnesses     []WitnessConfig `yaml:"witnesses"`
	WitnessQuorum int             `yaml:"witnessQuorum"` // how many must cosign a checkpoint that is published as cosigned; default: more than half
	// Retention says how long things are kept. The timeline is kept for good.
	Retention RetentionConfig `yaml:"retention"`
}

// RetentionConfig says how long things are kept: "90d", "6y", "12h"; "" is for good.
type RetentionConfig struct {
	// Recordings is from a session's end. What is under a LegalHold stays.
	Recordings string `yaml:"recordings"`
}

// WitnessConfig is an independent cosigner of the evidence: hoopctl witness, or
// whatever else speaks C2SP tlog-witness.
type WitnessConfig struct {
	URL string `yaml:"url"` // prefix of /add-checkpoint
	Key string `yaml:"key"` // its verifier key
}

// IssuerConfig is an identity provider that the server believes.
type IssuerConfig struct {
	Name         string            `yaml:"name"`
	URL          string            `yaml:"url"`
	Kind         string            `yaml:"kind"`         // human | workload
	Audience     string            `yaml:"audience"`     // default: clientID
	ClientID     string            `yaml:"clientID"`     // for humans: the client of the device flow; default hoopctl
	SubjectClaim string            `yaml:"subjectClaim"` // default sub
	NameClaim    string            `yaml:"nameClaim"`    // default preferred_username, else sub
	GroupsClaim  string            `yaml:"groupsClaim"`  // default groups
	Match        map[string]string `yaml:"match"`        // claims that must hold
	Scopes       []string          `yaml:"scopes"`       // default openid profile groups offline_access
	CAFile       string            `yaml:"caFile"`       // of the provider's certificate; "" is the system's
}

// Addresses are what a running server listens on.
type Addresses struct {
	API      netip.AddrPort
	Postgres netip.AddrPort // zero if there is none
}
