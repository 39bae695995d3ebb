package devidp

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

var (
	hiddenCSRF = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)
	hiddenCode = regexp.MustCompile(`name="user_code" value="([A-Z-]+)"`)
	saidError  = regexp.MustCompile(`role="alert">([^<]*)<`)
)

// Answer answers the page of a device login as a browser would, for scripts
// and demos: page is the address with the code in it
// (verification_uri_complete). It works against this provider only.
func Answer(ctx context.Context, page, user, password string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	h := &http.Client{Jar: jar, Timeout: 15 * time.Second}
	text, err := fetch(ctx, h, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	csrf, code := hiddenCSRF.FindStringSubmatch(text), hiddenCode.FindStringSubmatch(text)
	if csrf == nil || code == nil {
		return errors.New("this is not the development identity provider's page")
	}
	u, err := url.Parse(page)
	if err != nil {
		return err
	}
	u.RawQuery = ""
	_, err = fetch(ctx, h, http.MethodPost, u.String(), url.Values{
		"user_code": {code[1]}, "csrf": {csrf[1]}, "username": {user}, "password": {password}, "answer": {"allow"}})
	return err
}

func fetch(ctx context.Context, h *http.Client, method, address string, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := h.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if res.StatusCode == http.StatusOK {
		return string(b), nil
	}
	why := res.Status
	if said := saidError.FindSubmatch(b); said != nil {
		why = html.UnescapeString(string(said[1]))
	}
	return "", fmt.Errorf("the identity provider's page: %s", why)
}
