SET application_name = 'DataGrip 2024.1';

select version();

show transaction_isolation;

select current_database() as a, current_schemas(false) as b;

select N.oid::bigint as id, datname as name, D.description, datistemplate as is_template, datallowconn as allow_connections, pg_catalog.pg_get_userbyid(N.datdba) as "owner" from pg_catalog.pg_database N left join pg_catalog.pg_shdescription D on N.oid = D.objoid order by case when datname = pg_catalog.current_database() then -1::bigint else N.oid::bigint end;

select N.oid::bigint as id, N.xmin as state_number, nspname as name, D.description, pg_catalog.pg_get_userbyid(N.nspowner) as "owner" from pg_catalog.pg_namespace N left join pg_catalog.pg_description D on N.oid = D.objoid order by case when nspname = pg_catalog.current_schema() then -1::bigint else N.oid::bigint end;

select case when pg_catalog.pg_is_in_recovery() then null else pg_catalog.txid_current()::varchar::bigint end as current_txid;

select T.oid as table_id, T.relkind as table_kind, T.relname as table_name, T.xmin as table_state_number, (select array_agg(inhparent::bigint order by inhseqno)::varchar from (select inhseqno, inhparent from pg_catalog.pg_inherits where inhrelid = T.oid order by 1) as bts) as ancestors, T.relpersistence, pg_catalog.pg_get_userbyid(T.relowner) as "owner", T.reloptions as options from pg_catalog.pg_class T where T.relnamespace = 2200::oid and T.relkind in ('r', 'm', 'v', 'f', 'p') order by table_kind, table_id;

with T as ( select distinct T.oid as table_id, T.relname as table_name from pg_catalog.pg_class T, pg_catalog.pg_attribute A where T.relnamespace = 2200::oid and T.relkind in ('r', 'm', 'v', 'f', 'p') and A.attrelid = T.oid ) select T.table_id, C.attnum as column_position, C.attname as column_name, C.xmin as column_state_number, C.atttypmod as type_mod, C.attndims as dimensions_number, pg_catalog.format_type(C.atttypid, C.atttypmod) as type_spec, C.atttypid as type_id, C.attnotnull as mandatory, pg_catalog.pg_get_expr(D.adbin, T.table_id) as column_default_expression, not C.attislocal as column_is_inherited, C.attidentity as identity_kind, C.attgenerated as generated from T join pg_catalog.pg_attribute C on T.table_id = C.attrelid left join pg_catalog.pg_attrdef D on (C.attrelid, C.attnum) = (D.adrelid, D.adnum) where attnum > 0 order by table_id, attnum;

select T.oid table_id, relkind table_kind, C.oid::bigint con_id, C.xmin::varchar::bigint con_state_id, conname con_name, contype con_kind, conkey con_columns, conindid index_id, confrelid ref_table_id, condeferrable is_deferrable, confupdtype on_update, pg_catalog.pg_get_expr(conbin, T.oid) con_expression from pg_catalog.pg_constraint C join pg_catalog.pg_class T on C.conrelid = T.oid where relkind in ('r', 'v', 'f', 'p') and relnamespace = 2200::oid and contype in ('p', 'u', 'f', 'c', 'x') order by table_id, con_id;

select tab.oid table_id, tab.relkind table_kind, ind_stor.relname index_name, ind_head.indexrelid index_id, ind_head.indisunique is_unique, ind_head.indkey as column_positions, pg_catalog.array_to_string(array( select pg_catalog.pg_get_indexdef(ind_head.indexrelid, k + 1, true) from pg_catalog.generate_subscripts(ind_head.indkey, 1) as k order by k), ',') as expressions from pg_catalog.pg_class tab join pg_catalog.pg_index ind_head on ind_head.indrelid = tab.oid join pg_catalog.pg_class ind_stor on tab.relnamespace = ind_stor.relnamespace and ind_stor.oid = ind_head.indexrelid where tab.relnamespace = 2200::oid and tab.relkind in ('r', 'm', 'v', 'p') and ind_stor.relkind in ('i', 'I');

select D.objoid id, case when 'pg_catalog.pg_namespace'::regclass = classoid then 'n' when 'pg_catalog.pg_class'::regclass = classoid then 'c' end as kind, D.objsubid sub_id, D.description from pg_catalog.pg_description D where classoid = any (array['pg_catalog.pg_class'::regclass, 'pg_catalog.pg_namespace'::regclass]);
