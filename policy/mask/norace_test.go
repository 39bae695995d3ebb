//go:build !race

package mask

const racing = false
