-- Lets every object out of the extension and drops what is left of it: tables, rows and functions
-- stay.
do $$
declare
  r record;
begin
  for r in select object.type, object.identity
    from pg_catalog.pg_extension as extensions
    join pg_catalog.pg_depend as members
      on members.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
      and members.refobjid = extensions.oid
      and members.deptype = 'e'
    left join pg_catalog.pg_type as types
      on types.oid = members.objid and members.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
    left join pg_catalog.pg_class as rows_of on rows_of.oid = types.typrelid
    cross join lateral pg_catalog.pg_identify_object(members.classid, members.objid, 0) as object
    where extensions.extname = 'graphile_worker'
    and (object.type in ('table', 'sequence', 'view', 'function') or rows_of.relkind = 'c')
  loop
    execute pg_catalog.format('alter extension graphile_worker drop %s %s', r.type, r.identity);
  end loop;
end;
$$;
drop extension graphile_worker;
