-- T35: one table under many spellings, and tables that only look alike.
SELECT ssn FROM PATIENTS;
--> SELECT read; tables patients; reads patients.ssn
SELECT ssn FROM "patients";
--> SELECT read; tables patients; reads patients.ssn
SELECT ssn FROM "Patients";
--> SELECT read; tables Patients; reads Patients.ssn
SELECT ssn FROM Public.Patients;
--> SELECT read; tables patients; reads patients.ssn
SELECT ssn FROM "public"."patients";
--> SELECT read; tables patients; reads patients.ssn
SELECT ssn FROM "Public".patients;
--> SELECT read; tables Public.patients; reads Public.patients.ssn
SELECT ssn FROM clinic.public.patients;
--> SELECT read; tables patients; reads patients.ssn
SELECT "SSN" FROM patients;
--> SELECT read; tables patients; reads patients.SSN
SELECT U&"\0073sn" FROM U&"p\0061tients";
--> SELECT read; tables patients; reads patients.ssn
SELECT U&"!0073sn" UESCAPE '!' FROM patients;
--> SELECT read; tables patients; reads patients.ssn
SELECT pg_temp.patients.ssn FROM pg_temp.patients;
--> SELECT read; tables pg_temp.patients; reads pg_temp.patients.ssn
SELECT ssn FROM patients_view;
--> SELECT read; tables patients_view; reads patients_view.ssn
SELECT ssn FROM patients_2024;
--> SELECT read; tables patients_2024; reads patients_2024.ssn
SELECT most_common_vals FROM pg_stats WHERE tablename = 'patients';
--> SELECT read; tables pg_stats; reads pg_catalog.pg_stats.most_common_vals pg_catalog.pg_stats.tablename; tests pg_catalog.pg_stats.tablename
SELECT most_common_vals FROM pg_catalog.pg_stats;
--> SELECT read; tables pg_stats; reads pg_catalog.pg_stats.most_common_vals
SELECT stavalues1 FROM pg_statistic;
--> SELECT read; tables pg_statistic; reads pg_catalog.pg_statistic.stavalues1
SELECT chunk_data FROM pg_toast.pg_toast_16388;
--> SELECT read; tables pg_toast.pg_toast_16388; reads pg_toast.pg_toast_16388.chunk_data
SELECT query FROM pg_stat_activity;
--> SELECT read; tables pg_stat_activity; reads pg_catalog.pg_stat_activity.query
SELECT p.ssn FROM patients p, patients q WHERE q.id = p.id;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id
SELECT patients FROM patients;
--> SELECT read; tables patients; reads patients.* patients.patients
SELECT ssn FROM ONLY (patients);
--> SELECT read; tables patients; reads patients.ssn
SELECT s FROM patients s;
--> SELECT read; tables patients; reads patients.* patients.s
SELECT s.s FROM (SELECT ssn AS s FROM patients) s;
--> SELECT read; tables patients; reads patients.ssn
SELECT s FROM (SELECT ssn AS s FROM patients) s;
--> SELECT read; tables patients; reads patients.ssn
SELECT count(patients.*) FROM patients;
--> SELECT read; tables patients; reads patients.*; calls count; folds
SELECT x FROM patients AS patients(x);
--> SELECT read; tables patients; reads patients.*
SELECT patients.id FROM patients AS p;
--> SELECT read; tables patients; reads patients.*
SELECT a_very_long_name_that_is_longer_than_the_sixty_three_bytes_that_postgresql_keeps FROM patients;
--> SELECT read; tables patients; reads patients.a_very_long_name_that_is_longer_than_the_sixty_three_bytes_that
SELECT "ſsn" FROM patients;
--> SELECT read; tables patients; reads patients.ſsn
SELECT straße, "Ä" FROM patients;
--> SELECT read; tables patients; reads patients.straße patients.Ä
