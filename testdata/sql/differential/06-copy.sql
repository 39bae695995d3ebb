-- COPY in and out, in each form, and each way that it fails
CREATE TABLE c (a int, b text, d date DEFAULT '2000-01-01');
COPY c (a, b) FROM STDIN;
1	one
2	\N
3	tab\tand\\back
4	
\.
COPY c FROM STDIN (FORMAT csv, HEADER, NULL 'nil', QUOTE '''', DELIMITER ';');
a;b;d
5;'quoted; text';2024-01-02
6;nil;nil
\.
COPY c (b) FROM STDIN WITH CSV ESCAPE '\';
"say \"hi\""
""

\.
SELECT * FROM c ORDER BY a, b;
COPY c TO STDOUT;
COPY c (b, a) TO STDOUT WITH DELIMITER ',' NULL 'NULL';
COPY c TO STDOUT CSV HEADER QUOTE '"' FORCE QUOTE b;
COPY (SELECT a, upper(b) FROM c WHERE a < 3 ORDER BY a) TO STDOUT;
COPY (VALUES (1), (2)) TO STDOUT;
COPY (INSERT INTO c (a) VALUES (70) RETURNING a, d) TO STDOUT;
COPY (SELECT 1 WHERE false) TO STDOUT;
COPY c FROM STDIN;
x	not a number
\.
COPY c FROM STDIN;
1
\.
COPY c FROM STDIN;
1	2	2024-01-01	4
\.
COPY nothere FROM STDIN;
SELECT 'still in step';
COPY c (nothere) FROM STDIN;
COPY c FROM STDIN (FORMAT csv, FREEZE);
\.
COPY c FROM '/nonexistent/file';
COPY c TO STDOUT (FORMAT nonsense);
\copy c (a, b) FROM PSTDIN
80	copied
81	twice
\.
\copy (SELECT a, b FROM c WHERE a >= 80 ORDER BY a) TO STDOUT CSV
\copy c TO 'c.csv' CSV HEADER
\copy c FROM 'c.csv' CSV HEADER
\copy nothere FROM 'c.csv'
\copy c FROM 'nothere.csv'
\copy c FROM PROGRAM 'printf ''90\tprogram\t2020-02-02\n'''
SELECT count(*) FROM c;
BEGIN;
COPY c (a) FROM STDIN;
500
\.
ROLLBACK;
BEGIN;
COPY c (a) FROM STDIN;
bad
\.
SELECT 1;
COMMIT;
SELECT count(*) FROM c WHERE a = 500;
CREATE VIEW cv AS SELECT * FROM c;
COPY cv TO STDOUT;
COPY cv FROM STDIN;
1	2	2024-01-01
\.
CREATE TEMP TABLE big AS SELECT i, repeat(chr(97 + i % 26), i % 300) AS s FROM generate_series(1, 20000) i;
\copy big TO 'big.bin' (FORMAT binary)
TRUNCATE big;
\copy big FROM 'big.bin' (FORMAT binary)
SELECT count(*), sum(length(s)), md5(string_agg(s, '' ORDER BY i)) FROM big;
\copy big FROM PROGRAM 'printf ''not binary at all''' (FORMAT binary)
COPY c (a) FROM STDIN \; SELECT 'behind a copy' AS x \; COPY (SELECT 1) TO STDOUT;
7
\.
SET client_encoding = 'LATIN1';
COPY (SELECT 'h' || chr(233) || 'llo') TO STDOUT;
SET client_encoding = 'UTF8';
\encoding
