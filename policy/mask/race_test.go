//go:build race

package mask

// racing: under the race detector sync.Pool drops what it is given at random.
const racing = true
