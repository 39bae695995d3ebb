-- INSERT, UPDATE, DELETE, MERGE: what is set, what is read, and whether a WHERE narrows it.
INSERT INTO doctors VALUES (1, 'a', 'b');
--> INSERT write; tables doctors; sets doctors.*
INSERT INTO doctors (id, name) VALUES (1, 'a'), (2, 'b');
--> INSERT write; tables doctors; sets doctors.id doctors.name
INSERT INTO doctors (id, name) SELECT id, name FROM patients WHERE zip = '1';
--> INSERT write; tables doctors patients; reads patients.id patients.name patients.zip; tests patients.zip; sets doctors.id doctors.name
INSERT INTO doctors DEFAULT VALUES;
--> INSERT write; tables doctors; sets doctors.*
INSERT INTO doctors (id, name) OVERRIDING SYSTEM VALUE VALUES (1, DEFAULT);
--> INSERT write; tables doctors; sets doctors.id doctors.name
INSERT INTO doctors AS d (id) VALUES (1) RETURNING d.id, name;
--> INSERT write; tables doctors; reads doctors.id doctors.name; sets doctors.id
INSERT INTO doctors (id) VALUES (1) RETURNING *;
--> INSERT write; tables doctors; reads doctors.*; sets doctors.id
INSERT INTO doctors (id, name) VALUES (1, 'a') ON CONFLICT DO NOTHING;
--> INSERT write; tables doctors; tests doctors.*; sets doctors.id doctors.name
INSERT INTO doctors (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
--> INSERT write; tables doctors; reads doctors.name; tests doctors.id; sets doctors.id doctors.name
INSERT INTO doctors (id, name) VALUES (1, 'a') ON CONFLICT (lower(name)) WHERE city = 'x' DO UPDATE SET name = doctors.name || excluded.name WHERE doctors.city <> 'y';
--> INSERT write; tables doctors; reads doctors.city doctors.name; tests doctors.city doctors.name; sets doctors.id doctors.name; calls lower
INSERT INTO doctors (id, name) VALUES (1, 'a') ON CONFLICT ON CONSTRAINT doctors_pkey DO UPDATE SET (name, city) = ROW (excluded.name, 'b');
--> INSERT write; tables doctors; reads doctors.name; tests doctors.*; sets doctors.city doctors.id doctors.name
INSERT INTO doctors (id) VALUES ((SELECT max(id) FROM patients));
--> INSERT write; tables doctors patients; reads patients.id; sets doctors.id; calls max; folds
INSERT INTO t3 SELECT ssn FROM patients WHERE id = 1;
--> INSERT write; tables patients t3; reads patients.id patients.ssn; tests patients.id; sets t3.*
INSERT INTO pg_catalog.pg_class VALUES (1);
--> INSERT admin; tables pg_class; sets pg_catalog.pg_class.*
INSERT INTO pg_class (relname) VALUES ('x');
--> INSERT admin; tables pg_class; sets pg_catalog.pg_class.relname
UPDATE patients SET zip = '1' WHERE id = 3;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = $1 WHERE id = $2;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE ONLY patients p SET zip = '1' WHERE p.id = 3;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = zip WHERE id = 1 RETURNING ssn || '' AS zip;
--> UPDATE write; where; tables patients; reads patients.id patients.ssn patients.zip; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1';
--> UPDATE write; NO WHERE; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE true;
--> UPDATE write; NO WHERE; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE 1 = 1;
--> UPDATE write; NO WHERE; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE id = id;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE patients.id = public.patients.id;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IS NOT NULL;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IS NULL;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE NOT (id IS NULL);
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id = 1 OR true;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id = 1 OR id <> 1;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id = 1 OR name = 'a';
--> UPDATE write; where; tables patients; reads patients.id patients.name; tests patients.id patients.name; sets patients.zip
UPDATE patients SET zip = '1' WHERE id = 1 AND true;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IS NULL OR id IS NOT NULL;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE NOT (id <> 3 OR name <> 'x');
--> UPDATE write; where; tables patients; reads patients.id patients.name; tests patients.id patients.name; sets patients.zip
UPDATE patients SET zip = '1' WHERE NOT (id <> 3 AND name <> 'x');
--> UPDATE write; where; tables patients; reads patients.id patients.name; tests patients.id patients.name; sets patients.zip
UPDATE patients SET zip = '1' WHERE name LIKE '%';
--> UPDATE write; NO WHERE; tables patients; reads patients.name; tests patients.name; sets patients.zip; literal
UPDATE patients SET zip = '1' WHERE name LIKE 'A%';
--> UPDATE write; where; tables patients; reads patients.name; tests patients.name; sets patients.zip; literal
UPDATE patients SET zip = '1' WHERE name SIMILAR TO '%';
--> UPDATE write; NO WHERE; tables patients; reads patients.name; tests patients.name; sets patients.zip; calls similar_to_escape; literal
UPDATE patients SET zip = '1' WHERE id + 0 = id;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE coalesce(id = id, true);
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE (id = id) IS TRUE;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE (id = 3) IS NOT FALSE;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IN (1, 2, 3);
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IN (id, 2);
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IN (SELECT id FROM patients);
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IN (SELECT id FROM patients WHERE zip = '2');
--> UPDATE write; where; tables patients; reads patients.id patients.zip; tests patients.id patients.zip; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IN (SELECT patient_id FROM visits);
--> UPDATE write; where; tables patients visits; reads patients.id patients.patient_id visits.patient_id; tests patients.id patients.patient_id visits.patient_id; sets patients.zip
UPDATE patients SET zip = '1' WHERE EXISTS (SELECT 1 FROM visits);
--> UPDATE write; NO WHERE; tables patients visits; sets patients.zip
UPDATE patients SET zip = '1' WHERE EXISTS (SELECT 1 FROM visits v WHERE v.patient_id = patients.id);
--> UPDATE write; where; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id; sets patients.zip
UPDATE patients SET zip = '1' WHERE NOT EXISTS (SELECT 1 FROM visits v WHERE v.patient_id = patients.id);
--> UPDATE write; where; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id; sets patients.zip
UPDATE patients SET zip = '1' WHERE EXISTS (SELECT 1 FROM patients x WHERE x.id = patients.id);
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id = ANY ($1);
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id <> ANY (SELECT id FROM doctors);
--> UPDATE write; NO WHERE; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id BETWEEN 1 AND 3;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE starts_with(name, 'A');
--> UPDATE write; where; tables patients; reads patients.name; tests patients.name; sets patients.zip; calls starts_with
UPDATE patients SET zip = '1' WHERE isfinite(dob);
--> UPDATE write; NO WHERE; tables patients; reads patients.dob; tests patients.dob; sets patients.zip; calls isfinite
UPDATE patients SET zip = '1' WHERE zip < diagnosis;
--> UPDATE write; where; tables patients; reads patients.diagnosis patients.zip; tests patients.diagnosis patients.zip; sets patients.zip
UPDATE patients SET zip = '1' WHERE (id, name) = (3, 'x');
--> UPDATE write; where; tables patients; reads patients.id patients.name; tests patients.id patients.name; sets patients.zip
UPDATE patients SET zip = '1' WHERE (SELECT true);
--> UPDATE write; NO WHERE; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE CASE WHEN id = 3 THEN true ELSE true END;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IS DISTINCT FROM NULL;
--> UPDATE write; NO WHERE; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE id IS NOT DISTINCT FROM 3;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE patients SET zip = '1' WHERE 't'::bool;
--> UPDATE write; NO WHERE; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE $1;
--> UPDATE write; NO WHERE; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE CURRENT OF c;
--> UPDATE write; where; tables patients; sets patients.zip
UPDATE patients SET zip = '1' WHERE random() < 0.5;
--> UPDATE write; NO WHERE; tables patients; sets patients.zip; calls random
UPDATE patients p SET zip = v.ssn FROM visits v WHERE v.patient_id = p.id;
--> UPDATE write; where; tables patients visits; reads patients.id visits.patient_id visits.ssn; tests patients.id visits.patient_id; sets patients.zip
UPDATE patients p SET zip = '1' FROM visits v WHERE v.id = 3;
--> UPDATE write; NO WHERE; tables patients visits; reads visits.id; tests visits.id; sets patients.zip
UPDATE patients SET (zip, name) = ('1', 'x') WHERE id = 3;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.name patients.zip
UPDATE patients SET (zip, name) = (SELECT ssn, name FROM visits LIMIT 1) WHERE id = 3;
--> UPDATE write; where; tables patients visits; reads patients.id patients.name patients.ssn visits.name visits.ssn; tests patients.id; sets patients.name patients.zip; literal
UPDATE patients SET zip = DEFAULT WHERE id = 3;
--> UPDATE write; where; tables patients; reads patients.id; tests patients.id; sets patients.zip
UPDATE arrays SET a[1] = 2, c.f = 3 WHERE id = 3;
--> UPDATE write; where; tables arrays; reads arrays.id; tests arrays.id; sets arrays.a arrays.c
UPDATE patients SET notes = pg_read_file('/etc/passwd') WHERE id = 3;
--> UPDATE admin; where; tables patients; reads patients.id; tests patients.id; sets patients.notes; calls pg_read_file; literal
DELETE FROM visits WHERE id = 3;
--> DELETE write; where; tables visits; reads visits.id; tests visits.id
DELETE FROM visits;
--> DELETE write; NO WHERE; tables visits
DELETE FROM visits WHERE id = id;
--> DELETE write; NO WHERE; tables visits; reads visits.id; tests visits.id
DELETE FROM visits WHERE 'x' = 'x';
--> DELETE write; NO WHERE; tables visits
DELETE FROM visits v USING patients p WHERE v.patient_id = p.id AND p.zip = '1';
--> DELETE write; where; tables patients visits; reads patients.id patients.zip visits.patient_id; tests patients.id patients.zip visits.patient_id
DELETE FROM visits USING patients WHERE patients.zip = '1';
--> DELETE write; NO WHERE; tables patients visits; reads patients.zip; tests patients.zip
DELETE FROM visits WHERE id = 1 RETURNING ssn || '';
--> DELETE write; where; tables visits; reads visits.id visits.ssn; tests visits.id
DELETE FROM visits RETURNING *;
--> DELETE write; NO WHERE; tables visits; reads visits.*
DELETE FROM ONLY visits WHERE at < now() - interval '7 years';
--> DELETE write; where; tables visits; reads visits.at; tests visits.at; calls now
MERGE INTO doctors d USING patients p ON d.id = p.id WHEN MATCHED THEN UPDATE SET name = p.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (p.id, p.name);
--> MERGE write; where; tables doctors patients; reads doctors.id patients.id patients.name; tests doctors.id patients.id; sets doctors.id doctors.name
MERGE INTO doctors d USING patients p ON true WHEN MATCHED THEN DELETE;
--> MERGE write; NO WHERE; tables doctors patients
MERGE INTO doctors d USING (SELECT id, ssn FROM patients) p ON d.id = p.id WHEN MATCHED AND p.ssn = '1' THEN DO NOTHING WHEN NOT MATCHED THEN INSERT DEFAULT VALUES;
--> MERGE write; where; tables doctors patients; reads doctors.id patients.id patients.ssn; tests doctors.id patients.id patients.ssn; sets doctors.*
TRUNCATE visits;
--> TRUNCATE TABLE schema; tables visits; literal
TRUNCATE TABLE visits, doctors RESTART IDENTITY CASCADE;
--> TRUNCATE TABLE schema; tables doctors visits; literal
