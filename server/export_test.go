package server

// Routes are the API's calls, "METHOD path", for the matrix test.
func Routes() []string {
	var out []string
	for _, r := range routes() {
		out = append(out, r.method+" "+r.path)
	}
	return out
}
