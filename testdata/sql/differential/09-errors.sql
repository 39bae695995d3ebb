-- errors, of every class that one can make on purpose
SELECT * FROM nothere;
SELECT nocolumn FROM pg_class;
SELECT nofunction(1);
SELECT 1 + 'x';
SELECT 1/0;
SELECT 'abc'::int;
SELECT '2024-13-45'::date;
SELECT 300::int2 * 300::int2;
SELECT 99999999999::int;
SELECT "üñí" FROM pg_class;
INSERT INTO pg_class VALUES (1);
CREATE TABLE e (a int NOT NULL, b int REFERENCES e2);
CREATE TABLE e (a int NOT NULL PRIMARY KEY, b text CHECK (b <> 'bad'), EXCLUDE USING btree (b WITH =));
INSERT INTO e VALUES (NULL, 'x');
INSERT INTO e VALUES (1, 'bad');
INSERT INTO e VALUES (1, 'x');
INSERT INTO e VALUES (1, 'y');
INSERT INTO e VALUES (2, 'x');
SELECT a FROM e GROUP BY b;
SELECT (SELECT n FROM generate_series(1, 2) n);
SELECT ARRAY[1, 'x'];
SELECT row(1, 2) = row(1);
SELECT * FROM e ORDER BY 3;
SELECT $1;
SET nothere.x = 1;
SET nothere = 1;
SET work_mem = 'lots';
SHOW nothere;
SELECT pg_terminate_backend(0);
ALTER SYSTEM SET nothere = 1;
CREATE DATABASE template1;
SELECT 'x' LIKE 'y\';
SELECT regexp_replace('x', '(', '');
SELECT '{bad'::json;
SELECT jsonb '{"a":1}' #>> 'x';
SELECT to_date('x', 'YYYY');
SELECT lo_get(0);
SELECT chr(0);
\errverbose
\set VERBOSITY sqlstate
SELECT 1/0;
\set VERBOSITY terse
SELECT nothere FROM pg_class;
\set SHOW_CONTEXT always
\set VERBOSITY default
SELECT nothere FROM pg_class;
\errverbose
DO $$ BEGIN RAISE NOTICE 'with context'; END $$;
\set SHOW_CONTEXT never
DO $$ BEGIN RAISE EXCEPTION 'without context'; END $$;
\set SHOW_CONTEXT errors
\set VERBOSITY verbose
\set ECHO errors
SELECT echoed, error;
\set ECHO none
SELECT 'and it goes on' AS fine;
