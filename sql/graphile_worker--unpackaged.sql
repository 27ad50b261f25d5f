\echo Use "gw-install switch extension" to load this file. \quit

-- The start of turning plain objects into members of the extension. It holds nothing; the update
-- from here to 1.1.0 takes the objects in, and nothing but objects of that version.
do $$
begin
  if pg_catalog.to_regprocedure('@extschema@.version()') is null then
    raise exception
      'There is no plain graphile_worker to take in: @extschema@.version() is missing'
      using errcode = 'GWBIN',
        hint = 'Use "create extension graphile_worker" in an empty schema, or "gw-install adopt".';
  end if;
end;
$$;
