-- Syntax of PostgreSQL 16 and 17, which 15 does not have.
MERGE INTO doctors d USING patients p ON d.id = p.id WHEN NOT MATCHED BY SOURCE THEN DELETE;
--> MERGE write; NO WHERE; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id
MERGE INTO doctors d USING patients p ON d.id = p.id WHEN MATCHED THEN DELETE RETURNING merge_action(), d.name;
--> MERGE write; where; tables doctors patients; reads doctors.id doctors.name patients.id; tests doctors.id patients.id
WITH m AS (MERGE INTO doctors d USING patients p ON d.id = p.id WHEN MATCHED THEN DELETE RETURNING d.id) SELECT id FROM m;
--> MERGE write in SELECT; where; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id
SELECT * FROM json_table('[{"a":1}]', '$[*]' COLUMNS (a int PATH '$.a', NESTED PATH '$.b[*]' COLUMNS (c text PATH '$'))) jt;
--> SELECT read; calls json_table
SELECT jt.a FROM patients p, json_table(to_jsonb(p), '$' COLUMNS (a text PATH '$.ssn')) jt;
--> SELECT read; tables patients; reads patients.* patients.p; calls json_table to_jsonb
SELECT json_value(to_jsonb(p), '$.ssn'), json_query(to_jsonb(p), '$.ssn'), json_exists(to_jsonb(p), '$.ssn') FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p; calls json_exists json_query json_value to_jsonb
SELECT json_object('a': ssn), json_array(ssn, name), json_scalar(ssn), json_serialize('{}'), json('{}') FROM patients;
--> SELECT read; tables patients; reads patients.name patients.ssn; calls json json_array json_scalar json_serialize
SELECT json_arrayagg(ssn ORDER BY id), json_objectagg(id: ssn) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id; folds
SELECT json_array(SELECT ssn FROM patients);
--> SELECT read; tables patients; reads patients.ssn; folds
SELECT '{}' IS JSON OBJECT, ssn IS JSON FROM patients;
--> SELECT read; tables patients; reads patients.ssn
SELECT 1_000, 0x1F, 0b101, 0o17;
--> SELECT read
SELECT any_value(ssn) FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls any_value; folds
SELECT system_user;
--> SELECT read; calls system_user; literal
SELECT x FROM (SELECT 1 AS x);
--> SELECT read
EXPLAIN (SERIALIZE, ANALYZE) DELETE FROM visits;
--> DELETE write in EXPLAIN; NO WHERE; tables visits; literal
EXPLAIN (GENERIC_PLAN) SELECT id FROM patients WHERE id = $1;
--> EXPLAIN read; tables patients; reads patients.id; tests patients.id; literal
COPY patients FROM STDIN WITH (FORMAT csv, ON_ERROR ignore);
--> COPY write; tables patients; sets patients.*; literal; copy from=true client csv
