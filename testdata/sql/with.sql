-- WITH: its names are no tables, and what it writes is written.
WITH a AS (SELECT id FROM patients) SELECT id FROM a;
--> SELECT read; tables patients; reads patients.id
WITH a AS (SELECT ssn AS x FROM patients WHERE id = 1) SELECT x AS y FROM a;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id
WITH a(k) AS (SELECT ssn FROM patients) SELECT k FROM a WHERE k = '1';
--> SELECT read; tables patients; reads patients.ssn; tests patients.ssn
WITH a AS (SELECT 1 AS id), b AS (SELECT id FROM a) SELECT id FROM b;
--> SELECT read
WITH patients AS (SELECT 1 AS id) SELECT id FROM patients;
--> SELECT read
WITH a AS (SELECT id FROM patients) SELECT id FROM public.a;
--> SELECT read; tables a patients; reads a.id patients.id
WITH a AS MATERIALIZED (SELECT id FROM patients) SELECT id FROM a;
--> SELECT read; tables patients; reads patients.id
WITH a AS NOT MATERIALIZED (SELECT id FROM patients) SELECT id FROM a;
--> SELECT read; tables patients; reads patients.id
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n FROM r;
--> SELECT read
WITH RECURSIVE r(n, v) AS (SELECT 1, ssn FROM patients WHERE id = 1 UNION ALL SELECT n + 1, v FROM r WHERE n < 2) SELECT v FROM r;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id
WITH RECURSIVE r(a, b) AS (SELECT 1, 2 UNION ALL SELECT b, id FROM r, patients) SELECT a FROM r;
--> SELECT read; tables patients; reads patients.id
WITH RECURSIVE r(id) AS (SELECT id FROM patients UNION SELECT v.id FROM visits v JOIN r ON r.id = v.patient_id) SEARCH DEPTH FIRST BY id SET o SELECT id FROM r ORDER BY o;
--> SELECT read; tables patients visits; reads patients.id visits.id visits.patient_id; tests patients.id visits.id visits.patient_id
WITH RECURSIVE r(id) AS (SELECT id FROM patients UNION SELECT v.id FROM visits v JOIN r ON r.id = v.patient_id) CYCLE id SET c USING p SELECT id FROM r WHERE NOT c;
--> SELECT read; tables patients visits; reads patients.id visits.id visits.patient_id; tests patients.id visits.id visits.patient_id
WITH d AS (DELETE FROM visits RETURNING *) SELECT * FROM d;
--> DELETE write in SELECT; NO WHERE; tables visits; reads visits.*
WITH d AS (DELETE FROM visits WHERE id = 3 RETURNING id) SELECT id FROM d;
--> DELETE write in SELECT; where; tables visits; reads visits.id; tests visits.id
WITH u AS (UPDATE patients SET zip = '1' RETURNING ssn) SELECT ssn FROM u;
--> UPDATE write in SELECT; NO WHERE; tables patients; reads patients.ssn; sets patients.zip
WITH i AS (INSERT INTO doctors (id, name) VALUES (9, 'x') RETURNING id) SELECT id FROM i;
--> INSERT write in SELECT; tables doctors; reads doctors.id; sets doctors.id doctors.name
WITH d AS (DELETE FROM visits WHERE id = 3) UPDATE patients SET zip = '1' WHERE id = 3;
--> DELETE write in UPDATE; where; tables patients visits; reads patients.id visits.id; tests patients.id visits.id; sets patients.zip
WITH d AS (DELETE FROM visits WHERE id = 3) UPDATE patients SET zip = '1';
--> UPDATE write; NO WHERE; tables patients visits; reads visits.id; tests visits.id; sets patients.zip
WITH d AS (DELETE FROM visits) UPDATE patients SET zip = '1' WHERE id = 3;
--> DELETE write in UPDATE; NO WHERE; tables patients visits; reads patients.id; tests patients.id; sets patients.zip
WITH d AS (DELETE FROM visits RETURNING patient_id) INSERT INTO doctors (id) SELECT patient_id FROM d;
--> DELETE write in INSERT; NO WHERE; tables doctors visits; reads visits.patient_id; sets doctors.id
WITH s AS (SELECT id FROM patients WHERE zip = '1') DELETE FROM visits v USING s WHERE v.patient_id = s.id;
--> DELETE write; where; tables patients visits; reads patients.id patients.zip visits.patient_id; tests patients.id patients.zip visits.patient_id
WITH a AS (WITH b AS (SELECT ssn FROM patients) SELECT ssn FROM b) SELECT ssn FROM a;
--> SELECT read; tables patients; reads patients.ssn
SELECT id FROM (WITH a AS (SELECT id FROM patients) SELECT id FROM a) s;
--> SELECT read; tables patients; reads patients.id
SELECT id FROM doctors WHERE id IN (WITH a AS (SELECT patient_id FROM visits) SELECT patient_id FROM a);
--> SELECT read; tables doctors visits; reads doctors.id doctors.patient_id visits.patient_id; tests doctors.id doctors.patient_id visits.patient_id
WITH a AS (SELECT nextval('s') AS n) SELECT n FROM a;
--> SELECT write; calls nextval
WITH a AS (SELECT 1) TABLE a;
--> SELECT read
WITH a AS (VALUES (1), (2)) SELECT column1 FROM a;
--> SELECT read
