-- Statements that carry statements: EXPLAIN, PREPARE, DECLARE, COPY, CREATE … AS, and those that say nothing of what they run.
EXPLAIN SELECT id FROM patients WHERE ssn = '1';
--> EXPLAIN read; tables patients; reads patients.id patients.ssn; tests patients.ssn; literal
EXPLAIN ANALYZE SELECT id FROM patients;
--> EXPLAIN read; tables patients; reads patients.id; literal
EXPLAIN (ANALYZE, BUFFERS) SELECT id FROM patients;
--> EXPLAIN read; tables patients; reads patients.id; literal
EXPLAIN (ANALYZE false) DELETE FROM visits;
--> EXPLAIN write; tables visits; literal
EXPLAIN (ANALYZE off, VERBOSE) UPDATE visits SET id = 1;
--> EXPLAIN write; tables visits; sets visits.id; literal
EXPLAIN DELETE FROM visits;
--> EXPLAIN read; tables visits; literal
EXPLAIN ANALYZE DELETE FROM visits;
--> DELETE write in EXPLAIN; NO WHERE; tables visits; literal
EXPLAIN ANALYZE DELETE FROM visits WHERE id = 3;
--> DELETE write in EXPLAIN; where; tables visits; reads visits.id; tests visits.id; literal
EXPLAIN (ANALYZE) INSERT INTO doctors VALUES (1);
--> INSERT write in EXPLAIN; tables doctors; sets doctors.*; literal
EXPLAIN (ANALYZE 1) UPDATE visits SET id = 1;
--> UPDATE write in EXPLAIN; NO WHERE; tables visits; sets visits.id; literal
EXPLAIN ANALYZE CREATE TABLE x AS SELECT ssn FROM patients;
--> EXPLAIN schema; tables patients x; reads patients.ssn; literal
EXPLAIN EXECUTE p;
--> EXPLAIN read; literal; prepared p
EXPLAIN ANALYZE EXECUTE p;
--> EXPLAIN admin; literal; prepared p
EXPLAIN SELECT pg_read_file('x');
--> EXPLAIN admin; calls pg_read_file; literal
EXPLAIN SELECT my_function(1);
--> EXPLAIN write; calls my_function; folds; literal
EXPLAIN (ANALYZE) WITH d AS (DELETE FROM visits RETURNING *) SELECT * FROM d;
--> DELETE write in EXPLAIN; NO WHERE; tables visits; reads visits.*; literal
PREPARE p AS SELECT ssn || '' FROM patients WHERE id = $1;
--> PREPARE read; tables patients; reads patients.id patients.ssn; tests patients.id; prepared p
PREPARE p (int, text) AS UPDATE patients SET zip = $2 WHERE id = $1;
--> UPDATE write in PREPARE; where; tables patients; reads patients.id; tests patients.id; sets patients.zip; prepared p
PREPARE p AS DELETE FROM visits;
--> DELETE write in PREPARE; NO WHERE; tables visits; prepared p
EXECUTE p (1);
--> EXECUTE admin; literal; prepared p
EXECUTE p ((SELECT 1));
--> EXECUTE admin; literal; prepared p
DEALLOCATE p;
--> DEALLOCATE read; prepared p
DEALLOCATE PREPARE ALL;
--> DEALLOCATE read
DECLARE c CURSOR FOR SELECT ssn FROM patients;
--> DECLARE CURSOR read; tables patients; reads patients.ssn; cursor c
DECLARE c BINARY INSENSITIVE SCROLL CURSOR WITH HOLD FOR SELECT id FROM patients ORDER BY name;
--> DECLARE CURSOR read; tables patients; reads patients.id patients.name; tests patients.name; cursor c
DECLARE c CURSOR FOR SELECT id FROM patients FOR UPDATE;
--> DECLARE CURSOR write; tables patients; reads patients.id; locks; cursor c
FETCH c;
--> FETCH read; literal; cursor c
FETCH FORWARD 10 FROM c;
--> FETCH read; literal; cursor c
FETCH ALL IN c;
--> FETCH read; literal; cursor c
FETCH PRIOR c;
--> FETCH read; literal; cursor c
MOVE 10 FROM c;
--> MOVE read; literal; cursor c
CLOSE c;
--> CLOSE CURSOR read; cursor c
CLOSE ALL;
--> CLOSE CURSOR read
COPY patients TO STDOUT;
--> COPY export; tables patients; reads patients.*; literal; copy from=false client text
COPY patients (id, ssn) TO STDOUT WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'n', QUOTE '''', ESCAPE '\');
--> COPY export; tables patients; reads patients.id patients.ssn; literal; copy from=false client csv
COPY patients TO STDOUT (FORMAT binary);
--> COPY export; tables patients; reads patients.*; literal; copy from=false client binary
COPY (SELECT ssn FROM patients) TO STDOUT;
--> COPY export; tables patients; reads patients.ssn; literal; copy from=false client text
COPY (DELETE FROM visits RETURNING *) TO STDOUT;
--> DELETE export in COPY; NO WHERE; tables visits; reads visits.*; literal; copy from=false client text
COPY (UPDATE visits SET id = id WHERE id = 3 RETURNING id) TO STDOUT;
--> UPDATE export in COPY; where; tables visits; reads visits.id; tests visits.id; sets visits.id; literal; copy from=false client text
COPY patients FROM STDIN;
--> COPY write; tables patients; sets patients.*; literal; copy from=true client text
COPY patients (id, name) FROM STDIN WITH CSV HEADER;
--> COPY write; tables patients; sets patients.id patients.name; literal; copy from=true client csv
COPY patients FROM STDIN WHERE id > 3;
--> COPY write; tables patients; reads patients.id; tests patients.id; sets patients.*; literal; copy from=true client text
COPY patients TO '/tmp/x';
--> COPY admin; tables patients; reads patients.*; literal; copy from=false file text
COPY patients FROM '/tmp/x';
--> COPY admin; tables patients; sets patients.*; literal; copy from=true file text
COPY patients TO PROGRAM 'cat';
--> COPY admin; tables patients; reads patients.*; literal; copy from=false program text
COPY patients FROM PROGRAM 'cat';
--> COPY admin; tables patients; sets patients.*; literal; copy from=true program text
COPY (SELECT 1) TO '/tmp/x';
--> COPY admin; literal; copy from=false file text
COPY BINARY patients TO STDOUT;
--> COPY export; tables patients; reads patients.*; literal; copy from=false client binary
COPY patients TO STDOUT DELIMITERS '|';
--> COPY export; tables patients; reads patients.*; literal; copy from=false client text
CREATE TABLE x AS SELECT ssn FROM patients;
--> CREATE TABLE AS schema; tables patients x; reads patients.ssn
CREATE TEMP TABLE x (k) AS SELECT ssn FROM patients WITH NO DATA;
--> CREATE TABLE AS schema; tables patients x; reads patients.ssn
CREATE TABLE x AS EXECUTE p (1);
--> CREATE TABLE AS admin; tables x; literal; prepared p
CREATE TABLE x AS TABLE patients;
--> CREATE TABLE AS schema; tables patients x; reads patients.*
CREATE MATERIALIZED VIEW mv AS SELECT zip, count(*) FROM patients GROUP BY zip;
--> CREATE MATERIALIZED VIEW schema; tables mv patients; reads patients.zip; tests patients.zip; calls count; folds
REFRESH MATERIALIZED VIEW CONCURRENTLY mv;
--> REFRESH MATERIALIZED VIEW schema; tables mv; literal
CREATE VIEW v AS SELECT id, ssn || '' AS k FROM patients;
--> CREATE VIEW schema; tables patients v; reads patients.id patients.ssn
CREATE OR REPLACE TEMP VIEW v (a) AS SELECT ssn FROM patients WITH CHECK OPTION;
--> CREATE VIEW schema; tables patients v; reads patients.ssn
CREATE RECURSIVE VIEW v (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM v;
--> CREATE VIEW schema; tables v
CREATE VIEW v AS SELECT pg_read_file('/etc/passwd');
--> CREATE VIEW admin; tables v; calls pg_read_file; literal
DO $$BEGIN DELETE FROM visits; END$$;
--> DO admin; literal
DO LANGUAGE plpgsql 'BEGIN END';
--> DO admin; literal
CALL my_procedure(1);
--> CALL admin; calls my_procedure; folds; literal
CALL app.my_procedure((SELECT ssn FROM patients LIMIT 1));
--> CALL admin; tables patients; reads patients.ssn; calls app.my_procedure; folds; literal
