-- what psql asks of the catalogue
CREATE SCHEMA d; SET search_path = d, public;
CREATE TYPE d_enum AS ENUM ('a', 'b'); CREATE TYPE d_comp AS (x int); CREATE DOMAIN d_dom AS text CHECK (VALUE <> '');
CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'x', e d_enum, dm d_dom, g int GENERATED ALWAYS AS (1) STORED);
CREATE TABLE kid (id int PRIMARY KEY, p int REFERENCES parent ON UPDATE CASCADE, CONSTRAINT odd CHECK (id % 2 = 1));
CREATE TABLE part (a int, b text COLLATE "C") PARTITION BY LIST (a); CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1, 2);
CREATE INDEX kid_p ON kid (p DESC); CREATE VIEW v AS SELECT id, name FROM parent; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a; CREATE SEQUENCE sq;
CREATE FUNCTION f(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a'; CREATE PROCEDURE pr() LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION tg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr AFTER INSERT ON kid FOR EACH ROW EXECUTE FUNCTION tg();
CREATE RULE ru AS ON UPDATE TO kid WHERE false DO NOTHING; CREATE STATISTICS st ON id, p FROM kid; CREATE PUBLICATION pub FOR TABLE kid;
ALTER TABLE kid ENABLE ROW LEVEL SECURITY; CREATE POLICY po ON kid FOR SELECT USING (id > 0); COMMENT ON TABLE kid IS 'the kid'; COMMENT ON COLUMN kid.p IS 'its parent';
\d
\d+
\d parent
\d+ parent
\d kid
\d+ kid
\d part
\d+ part
\d part1
\d v
\d+ v
\d mv
\d sq
\d kid_p
\d nothere
\d d.*
\dt
\dt+ kid
\di
\dv
\dm
\ds
\dE
\dtvs
\df
\df+ f
\da sum
\dT
\dT+ d_enum
\dD
\dn
\dn+ d
\dp
\ddp
\dy
\dRp
\dRp+ pub
\dX
\dx plpgsql
\dL
\dc latin1_to_utf8
\dC money
\dO "C"
\dA
\dAc btree int4
\dAf btree int4
\dAo btree integer_ops
\dAp btree integer_ops
\dF english
\dF+ english
\dFd simple
\dFp
\dFt snowball
\do ||
\dd
\des
\dew
\deu
\det
\drds
\db pg_default
\dg nothere
\dP
\dPt
\dconfig enable_seqscan
\sf f
\sf+ f
\sv v
\z kid
\l nothere
\dS pg_am
\dfS int4pl
\doS <<|
\h ABORT
\set ECHO_HIDDEN on
\dt kid
\set ECHO_HIDDEN noexec
\dt kid
\set ECHO_HIDDEN off
\set VERBOSITY terse
DROP PUBLICATION pub;
DROP SCHEMA d CASCADE;
RESET search_path;
\set VERBOSITY verbose
