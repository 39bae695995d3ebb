-- SELECT, VALUES, TABLE: what is read, and what decides about rows.
SELECT 1;
--> SELECT read
SELECT id, diagnosis FROM patients;
--> SELECT read; tables patients; reads patients.diagnosis patients.id
SELECT p.id FROM patients p;
--> SELECT read; tables patients; reads patients.id
SELECT p.id FROM patients AS p;
--> SELECT read; tables patients; reads patients.id
SELECT patients.id FROM public.patients;
--> SELECT read; tables patients; reads patients.id
SELECT public.patients.id FROM public.patients;
--> SELECT read; tables patients; reads patients.id
SELECT * FROM patients;
--> SELECT read; tables patients; reads patients.*
SELECT p.* FROM patients p;
--> SELECT read; tables patients; reads patients.*
SELECT p FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p
SELECT (p).ssn FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p
SELECT (p).* FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p
TABLE patients;
--> SELECT read; tables patients; reads patients.*
VALUES (1, 'a'), (2, 'b');
--> SELECT read
SELECT id FROM ONLY patients;
--> SELECT read; tables patients; reads patients.id
SELECT DISTINCT zip FROM patients;
--> SELECT read; tables patients; reads patients.zip; tests patients.zip
SELECT DISTINCT ON (zip) id FROM patients ORDER BY zip, id;
--> SELECT read; tables patients; reads patients.id patients.zip; tests patients.id patients.zip
SELECT ALL id FROM patients;
--> SELECT read; tables patients; reads patients.id
SELECT id FROM patients WHERE name = 'Ada';
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.name
SELECT id FROM patients WHERE name = $1;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.name
SELECT id FROM patients ORDER BY name;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.name
SELECT id, name FROM patients ORDER BY 2;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.name; literal
SELECT id, upper(name) AS n FROM patients ORDER BY n;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.name; calls upper
SELECT zip, count(*) FROM patients GROUP BY zip;
--> SELECT read; tables patients; reads patients.zip; tests patients.zip; calls count; folds
SELECT zip, count(*) FROM patients GROUP BY 1;
--> SELECT read; tables patients; reads patients.zip; tests patients.zip; calls count; folds; literal
SELECT zip, count(*) FROM patients GROUP BY zip HAVING count(*) > 5;
--> SELECT read; tables patients; reads patients.zip; tests patients.zip; calls count; folds
SELECT zip, diagnosis, count(*) FROM patients GROUP BY GROUPING SETS ((zip), (diagnosis), ());
--> SELECT read; tables patients; reads patients.diagnosis patients.zip; tests patients.diagnosis patients.zip; calls count; folds
SELECT zip, diagnosis, grouping(zip) FROM patients GROUP BY ROLLUP (zip, diagnosis);
--> SELECT read; tables patients; reads patients.diagnosis patients.zip; tests patients.diagnosis patients.zip
SELECT zip, diagnosis FROM patients GROUP BY CUBE (zip, diagnosis);
--> SELECT read; tables patients; reads patients.diagnosis patients.zip; tests patients.diagnosis patients.zip
SELECT id FROM patients LIMIT 10;
--> SELECT read; tables patients; reads patients.id; literal; limit 10
SELECT id FROM patients LIMIT $1 OFFSET $2;
--> SELECT read; tables patients; reads patients.id
SELECT id FROM patients LIMIT ALL;
--> SELECT read; tables patients; reads patients.id; literal
SELECT id FROM patients FETCH FIRST 5 ROWS ONLY;
--> SELECT read; tables patients; reads patients.id; literal; limit 5
SELECT id FROM patients ORDER BY id FETCH FIRST 5 ROWS WITH TIES;
--> SELECT read; tables patients; reads patients.id; tests patients.id; literal
SELECT id FROM patients LIMIT (SELECT count(*) FROM visits);
--> SELECT read; tables patients visits; reads patients.id; calls count; folds
SELECT id FROM patients FOR UPDATE;
--> SELECT write; tables patients; reads patients.id; locks
SELECT id FROM patients FOR NO KEY UPDATE;
--> SELECT write; tables patients; reads patients.id; locks
SELECT id FROM patients FOR SHARE SKIP LOCKED;
--> SELECT write; tables patients; reads patients.id; locks
SELECT id FROM patients FOR KEY SHARE NOWAIT;
--> SELECT write; tables patients; reads patients.id; locks
SELECT p.id FROM patients p JOIN visits v ON v.patient_id = p.id FOR UPDATE OF v;
--> SELECT write; tables patients visits; reads patients.id visits.patient_id; tests patients.id visits.patient_id; locks
SELECT id FROM patients TABLESAMPLE bernoulli (10);
--> SELECT read; tables patients; reads patients.id
SELECT id FROM patients TABLESAMPLE system (10) REPEATABLE (7);
--> SELECT read; tables patients; reads patients.id
SELECT count(*) FROM patients;
--> SELECT read; tables patients; calls count; folds
SELECT count(ssn) FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls count; folds
SELECT count(DISTINCT ssn) FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls count; folds
SELECT count(*) FILTER (WHERE ssn LIKE '1%') FROM patients;
--> SELECT read; tables patients; reads patients.ssn; tests patients.ssn; calls count; folds
SELECT min(ssn), max(ssn) FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls max min; folds
SELECT string_agg(ssn, ',' ORDER BY id) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id; calls string_agg; folds
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM patients;
--> SELECT read; tables patients; reads patients.id; tests patients.id; calls percentile_cont; folds
SELECT id, row_number() OVER (ORDER BY name) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.name; calls row_number
SELECT id, sum(id) OVER (PARTITION BY zip ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.zip; tests patients.id patients.zip; calls sum; folds
SELECT id, lag(ssn) OVER w FROM patients WINDOW w AS (ORDER BY zip);
--> SELECT read; tables patients; reads patients.id patients.ssn patients.zip; tests patients.zip; calls lag
SELECT id FROM patients UNION SELECT id FROM doctors;
--> SELECT read; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id
SELECT id FROM patients UNION ALL SELECT id FROM doctors ORDER BY 1;
--> SELECT read; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id; literal
SELECT id FROM patients INTERSECT SELECT id FROM doctors;
--> SELECT read; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id
SELECT id FROM patients EXCEPT ALL SELECT id FROM doctors;
--> SELECT read; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id
(SELECT id FROM patients) UNION (SELECT id FROM doctors) LIMIT 3;
--> SELECT read; tables doctors patients; reads doctors.id patients.id; tests doctors.id patients.id; literal; limit 3
SELECT zip FROM patients WHERE id = -1 UNION ALL SELECT ssn FROM patients WHERE id = 1;
--> SELECT read; tables patients; reads patients.id patients.ssn patients.zip; tests patients.id
SELECT id INTO copied FROM patients;
--> SELECT INTO schema; tables copied patients; reads patients.id
SELECT ssn AS k INTO TEMP copied FROM patients;
--> SELECT INTO schema; tables copied patients; reads patients.ssn
SELECT;
--> SELECT read
SELECT FROM patients;
--> SELECT read; tables patients
SELECT WHERE false;
--> SELECT read
SELECT x FROM (VALUES (1), (2)) AS v(x);
--> SELECT read
SELECT "ID" FROM "Patients";
--> SELECT read; tables Patients; reads Patients.ID
SELECT count(*), sum(id) FROM patients WHERE zip = '94110' AND diagnosis <> 'I10' AND (name LIKE 'A%' OR mrn IS NULL);
--> SELECT read; tables patients; reads patients.diagnosis patients.id patients.mrn patients.name patients.zip; tests patients.diagnosis patients.mrn patients.name patients.zip; calls count sum; folds
