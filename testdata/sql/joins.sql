-- FROM lists: joins, sub-selects, LATERAL, functions, and what names mean in them.
SELECT p.id, v.at FROM patients p, visits v WHERE p.id = v.patient_id;
--> SELECT read; tables patients visits; reads patients.id visits.at visits.patient_id; tests patients.id visits.patient_id
SELECT p.id, v.at FROM patients p JOIN visits v ON p.id = v.patient_id;
--> SELECT read; tables patients visits; reads patients.id visits.at visits.patient_id; tests patients.id visits.patient_id
SELECT p.id, v.at FROM patients p LEFT OUTER JOIN visits v ON p.id = v.patient_id;
--> SELECT read; tables patients visits; reads patients.id visits.at visits.patient_id; tests patients.id visits.patient_id
SELECT p.id FROM patients p RIGHT JOIN visits v ON p.id = v.patient_id;
--> SELECT read; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id
SELECT p.id FROM patients p FULL JOIN visits v ON p.id = v.patient_id;
--> SELECT read; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id
SELECT p.id FROM patients p CROSS JOIN doctors;
--> SELECT read; tables doctors patients; reads patients.id
SELECT id, v.at FROM patients JOIN visits v USING (id);
--> SELECT read; tables patients visits; reads patients.id visits.at visits.id; tests patients.id visits.id
SELECT j.id FROM patients JOIN visits USING (id) AS j;
--> SELECT read; tables patients visits; reads patients.id visits.id; tests patients.id visits.id
SELECT name FROM patients NATURAL JOIN visits;
--> SELECT read; tables patients visits; reads patients.name visits.name; tests patients.* visits.*
SELECT z FROM (SELECT ssn AS z FROM patients) s NATURAL JOIN visits;
--> SELECT read; tables patients visits; reads patients.ssn visits.z; tests patients.ssn visits.*
SELECT j.a FROM (patients p JOIN visits v ON p.id = v.patient_id) AS j(a, b);
--> SELECT read; tables patients visits; reads patients.* patients.id visits.* visits.patient_id; tests patients.id visits.patient_id
SELECT x.ssn FROM (patients p JOIN visits v ON p.id = v.patient_id) AS x;
--> SELECT read; tables patients visits; reads patients.id patients.ssn visits.patient_id visits.ssn; tests patients.id visits.patient_id
SELECT diagnosis, at FROM patients, visits;
--> SELECT read; tables patients visits; reads patients.at patients.diagnosis visits.at visits.diagnosis
SELECT z FROM (SELECT ssn AS z FROM patients WHERE id = 1) s;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id
SELECT z FROM (SELECT ssn AS z FROM patients) s WHERE z LIKE '1%';
--> SELECT read; tables patients; reads patients.ssn; tests patients.ssn
SELECT s.upper FROM (SELECT upper(ssn) FROM patients) s;
--> SELECT read; tables patients; reads patients.ssn; calls upper
SELECT s.* FROM (SELECT id, ssn FROM patients) s;
--> SELECT read; tables patients; reads patients.id patients.ssn
SELECT s.b FROM (SELECT id, ssn FROM patients) s(a, b) WHERE s.b = '1';
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.ssn
SELECT c FROM patients AS p(a, b, c) WHERE a = 1;
--> SELECT read; tables patients; reads patients.*; tests patients.*
SELECT l.v FROM patients p, LATERAL (SELECT p.ssn AS v) l WHERE p.id = 1;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id
SELECT p.id, l.n FROM patients p LEFT JOIN LATERAL (SELECT count(*) AS n FROM visits v WHERE v.patient_id = p.id) l ON true;
--> SELECT read; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id; calls count; folds
SELECT g FROM generate_series(1, 3) g;
--> SELECT read; calls generate_series
SELECT g.n FROM generate_series(1, 3) AS g(n);
--> SELECT read; calls generate_series
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) WITH ORDINALITY AS u(a, b, n);
--> SELECT read; calls unnest
SELECT * FROM ROWS FROM (generate_series(1, 3), generate_series(4, 6)) AS r(a, b);
--> SELECT read; calls generate_series
SELECT e.value FROM patients p, jsonb_each_text(to_jsonb(p)) e WHERE p.id = 1;
--> SELECT read; tables patients; reads patients.* patients.id patients.p; tests patients.id; calls jsonb_each_text to_jsonb
SELECT * FROM json_to_recordset('[{"a":1}]') AS x(a int, b text);
--> SELECT read; calls json_to_recordset
SELECT a.id FROM patients a, patients b WHERE a.ssn = b.ssn AND a.id < b.id;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id patients.ssn
SELECT (SELECT name FROM doctors d WHERE d.id = v.doctor_id) FROM visits v;
--> SELECT read; tables doctors visits; reads doctors.id doctors.name visits.doctor_id visits.name; tests doctors.id visits.doctor_id
SELECT id FROM patients WHERE EXISTS (SELECT 1 FROM visits v WHERE v.patient_id = patients.id);
--> SELECT read; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id
SELECT id FROM patients WHERE id IN (SELECT patient_id FROM visits WHERE fee > 100);
--> SELECT read; tables patients visits; reads patients.fee patients.id patients.patient_id visits.fee visits.patient_id; tests patients.fee patients.id patients.patient_id visits.fee visits.patient_id
SELECT id FROM patients WHERE id NOT IN (SELECT patient_id FROM visits);
--> SELECT read; tables patients visits; reads patients.id patients.patient_id visits.patient_id; tests patients.id patients.patient_id visits.patient_id
SELECT id FROM patients WHERE id = ANY (SELECT patient_id FROM visits);
--> SELECT read; tables patients visits; reads patients.id patients.patient_id visits.patient_id; tests patients.id patients.patient_id visits.patient_id
SELECT id FROM patients WHERE (id, name) = (SELECT id, name FROM doctors LIMIT 1);
--> SELECT read; tables doctors patients; reads doctors.id doctors.name patients.id patients.name; tests doctors.id doctors.name patients.id patients.name; literal
SELECT ARRAY(SELECT ssn FROM patients ORDER BY id);
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id; folds
SELECT id FROM patients p WHERE id > ALL (SELECT patient_id FROM visits WHERE ssn = p.ssn);
--> SELECT read; tables patients visits; reads patients.id patients.patient_id patients.ssn visits.patient_id visits.ssn; tests patients.id patients.patient_id patients.ssn visits.patient_id visits.ssn
SELECT * FROM patients p JOIN visits v USING (id) JOIN doctors d USING (id);
--> SELECT read; tables doctors patients visits; reads doctors.* doctors.id patients.* patients.id visits.* visits.id; tests doctors.id patients.id visits.id
SELECT x.a FROM xmltable('/r' PASSING '<r/>' COLUMNS a text PATH '@a') x;
--> SELECT read
SELECT t.* FROM patients p, xmltable('/r' PASSING (p.notes::xml) COLUMNS a text PATH '@a', b int PATH '@b') t;
--> SELECT read; tables patients; reads patients.notes
SELECT pg_class.relname FROM pg_class WHERE relname = 'patients';
--> SELECT read; tables pg_class; reads pg_catalog.pg_class.relname; tests pg_catalog.pg_class.relname
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
--> SELECT read; tables pg_class pg_namespace; reads pg_catalog.pg_class.relname pg_catalog.pg_class.relnamespace pg_catalog.pg_namespace.oid; tests pg_catalog.pg_class.relnamespace pg_catalog.pg_namespace.oid
SELECT column_name FROM information_schema.columns WHERE table_name = 'patients';
--> SELECT read; tables information_schema.columns; reads information_schema.columns.column_name information_schema.columns.table_name; tests information_schema.columns.table_name
