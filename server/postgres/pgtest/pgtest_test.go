package pgtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestMain(m *testing.M) { Main(m) }

func TestSharedCluster(t *testing.T) {
	s := Start(t)
	db := s.Database(t, "CREATE TABLE t (a int, b text)", "INSERT INTO t VALUES (1, NULL)")
	rows := s.Exec(t, db, "SELECT * FROM t")
	if len(rows) != 1 || rows[0][0] != "1" || rows[0][1] != "<null>" {
		t.Fatalf("rows %q", rows)
	}
	if !strings.Contains(s.Log(t), "SELECT * FROM t") {
		t.Error("the statement is not in the server's log")
	}
	if Start(t) != s {
		t.Error("a second Start made a second cluster")
	}
}

func TestVerifiedTLS(t *testing.T) {
	s := Start(t)
	config, err := pgconn.ParseConfig(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	config.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "localhost"}
	conn, err := pgconn.ConnectConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
}

func TestOwnClusterLeavesNothing(t *testing.T) {
	var dir string
	t.Run("own", func(t *testing.T) {
		s := Start(t, "work_mem=5MB")
		dir = s.Dir
		if rows := s.Exec(t, "postgres", "SHOW work_mem"); rows[0][0] != "5MB" {
			t.Errorf("work_mem %s", rows[0][0])
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestPostgreSQL18(t *testing.T) {
	older := Start(t)
	t.Run("18", func(t *testing.T) {
		Use18(t)
		if v := Start(t).Exec(t, "postgres", "SHOW server_version_num"); v[0][0][:2] != "18" {
			t.Errorf("version %s", v[0][0])
		}
	})
	if Start(t) != older {
		t.Error("Use18 outlives its test")
	}
}
