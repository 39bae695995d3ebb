// Program vulnerable decodes bytes with pgproto3/v2, which hoopctl must never
// do. `make vuln` fails unless govulncheck reports it.
package main

import (
	"fmt"
	"os"

	"github.com/jackc/pgproto3/v2"
)

func main() {
	var row pgproto3.DataRow
	fmt.Println(row.Decode([]byte(os.Args[1])), len(row.Values))
}
