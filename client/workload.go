package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/hoopctl/hoopctl/server/api"
)

const (
	// serviceAccountToken is where a pod's manifest projects a token whose
	// audience is ours (a projected volume of name hoopctl).
	serviceAccountToken = "/var/run/secrets/hoopctl/token"
	maxAssertion        = 64 << 10
)

// Assertion returns a fresh token that says which service this is:
//
//	k8s      the projected service account token in /var/run/secrets/hoopctl/token
//	         (or the file that HOOPCTL_WORKLOAD_TOKEN_FILE names)
//	github   a token of the running GitHub Actions job, asked for with our audience
//	FILE     a file that holds such a token, or a JSON object
//	         {"clientID": …, "clientSecret": …} for the provider's client_credentials grant
//
// The secret of a FILE goes to the provider only, never to the server.
func Assertion(ctx context.Context, workload string, issuer api.Issuer) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	switch workload {
	case "":
		return "", errors.New("no workload is named")
	case "k8s":
		path := os.Getenv("HOOPCTL_WORKLOAD_TOKEN_FILE")
		if path == "" {
			path = serviceAccountToken
		}
		return readAssertion(ctx, path, issuer)
	case "github":
		return githubAssertion(ctx, issuer)
	default:
		return readAssertion(ctx, workload, issuer)
	}
}

func readAssertion(ctx context.Context, path string, issuer api.Issuer) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("workload: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAssertion))
	if err != nil {
		return "", fmt.Errorf("workload: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if !strings.HasPrefix(text, "{") {
		return text, nil
	}
	var c struct{ ClientID, ClientSecret string }
	if err := json.Unmarshal(b, &c); err != nil || c.ClientID == "" || c.ClientSecret == "" {
		return "", fmt.Errorf(`workload: %s is neither a token nor {"clientID": …, "clientSecret": …}`, path)
	}
	return clientCredentials(ctx, issuer, c.ClientID, c.ClientSecret)
}

// clientCredentials runs the grant of RFC 6749, 4.4 at the issuer.
func clientCredentials(ctx context.Context, issuer api.Issuer, id, secret string) (string, error) {
	p, err := discover(ctx, issuer)
	if err != nil {
		return "", unavailable(err)
	}
	config := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: p.config.Endpoint.TokenURL,
		AuthStyle: oauth2.AuthStyleInHeader, Scopes: issuer.Scopes}
	t, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, p.http))
	if err != nil {
		return "", fmt.Errorf("identity provider %s: %w", issuer.Name, providerError(err))
	}
	if id, ok := t.Extra("id_token").(string); ok && id != "" {
		return id, nil
	}
	return t.AccessToken, nil
}

// githubAssertion asks the job's own endpoint for a token with our audience
// (GitHub Actions: "id-token: write").
func githubAssertion(ctx context.Context, issuer api.Issuer) (string, error) {
	address, bearer := os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || bearer == "" {
		return "", errors.New("workload: not in a GitHub Actions job with the permission id-token: write")
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("workload: ACTIONS_ID_TOKEN_REQUEST_URL: %w", err)
	}
	q := u.Query()
	q.Set("audience", issuer.ClientID)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", fmt.Errorf("workload: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	res, err := (&http.Client{Timeout: providerTimeout}).Do(req)
	if err != nil {
		return "", fmt.Errorf("workload: ask GitHub for a token: %w", err)
	}
	defer res.Body.Close()
	var out struct{ Value string }
	err = json.NewDecoder(io.LimitReader(res.Body, maxAssertion)).Decode(&out)
	if res.StatusCode != http.StatusOK || err != nil || out.Value == "" {
		return "", fmt.Errorf("workload: GitHub gave no token: %s", res.Status)
	}
	return out.Value, nil
}
