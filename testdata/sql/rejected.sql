-- What the grammar refuses: nothing of it is ever sent on.
SELECT 1 FROM;
--> REFUSED syntax error at or near ";" at character 14
SELEC 1;
--> REFUSED syntax error at or near "SELEC" at character 1
SELECT 'unterminated;
--> REFUSED a quoted string that does not end at character 8
SELECT "unterminated;
--> REFUSED a quoted identifier that does not end at character 8
SELECT $$unterminated;
--> REFUSED a dollar-quoted string that does not end at character 8
SELECT /* unterminated;
--> REFUSED comments nest too deep or do not end at character 8
SELECT E'\';
--> REFUSED a quoted string that does not end at character 8
SELECT * FROM WHERE id = 1;
--> REFUSED syntax error at or near "WHERE" at character 15
SELECT 1 FROM patients WHERE;
--> REFUSED syntax error at or near ";" at character 29
DELETE patients;
--> REFUSED syntax error at or near "patients" at character 8
INSERT INTO VALUES (1);
--> REFUSED syntax error at or near "1" at character 21
UPDATE SET a = 1;
--> REFUSED syntax error at or near "=" at character 14
SELECT (1;
--> REFUSED syntax error at or near ";" at character 10
SELECT 1);
--> REFUSED syntax error at or near ")" at character 9
CREATE TABLE;
--> REFUSED syntax error at or near ";" at character 13
EXPLAIN EXPLAIN SELECT 1;
--> REFUSED syntax error at or near "EXPLAIN" at character 9
COPY patients;
--> REFUSED syntax error at or near ";" at character 14
GRANT SELECT TO;
--> REFUSED syntax error at or near ";" at character 16
BEGIN SELECT 1;
--> REFUSED syntax error at or near "SELECT" at character 7
SELECT 123abc;
--> REFUSED trailing junk after numeric literal at or near "123abc" at character 8
SELECT U&'\00';
--> REFUSED invalid Unicode escape at character 11
SELECT 1 AS;
--> REFUSED syntax error at or near ";" at character 12
SELECT LIMIT 5 5;
--> REFUSED syntax error at or near "5" at character 16
SET;
--> REFUSED syntax error at or near ";" at character 4
DROP;
--> REFUSED syntax error at or near ";" at character 5
WITH a AS SELECT 1 SELECT 2;
--> REFUSED syntax error at or near "SELECT" at character 11
VALUES;
--> REFUSED syntax error at or near ";" at character 7
SELECT * FROM (SELECT 1;
--> REFUSED syntax error at or near ";" at character 24
SELECT 1 UNION;
--> REFUSED syntax error at or near ";" at character 15
SELECT $;
--> REFUSED a $ that starts neither a parameter nor a quote at character 8
SELECT $ 1;
--> REFUSED a $ that starts neither a parameter nor a quote at character 8
SELECT "";
--> REFUSED zero-length delimited identifier at or near """" at character 8
SELECT 'a' 'b';
--> REFUSED syntax error at or near "'b'" at character 12
SELECT 1 WHERE x = x'1' y z;
--> REFUSED syntax error at or near "y" at character 25
