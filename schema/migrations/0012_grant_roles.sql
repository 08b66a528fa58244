-- Group roles, for logins to be members of: gpu_owner (all rights on the data: reset, repair), gpu_writer (the sink
-- and the services that score), gpu_reader (dashboards, API). The tables belong to the login that migrates, since
-- TimescaleDB's background jobs run as the owner, who must be able to log in. `gpumon migrate` calls this function
-- each time, so objects made later are covered. Where the user may not create roles, it says so and leaves what is
-- there.
CREATE FUNCTION grant_roles() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['gpu_owner', 'gpu_writer', 'gpu_reader'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role_name);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            -- Roles belong to the whole server: another database's migration may be making it at this moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % is missing and % may not create roles: ask an administrator for "CREATE ROLE % NOLOGIN", then run gpumon migrate again',
                    role_name, current_user, role_name;
        END;
    END LOOP;
    IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('gpu_owner', 'gpu_writer', 'gpu_reader')) < 3 THEN
        RETURN;
    END IF;

    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO gpu_owner, gpu_writer', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO gpu_reader', current_database());

    -- EXECUTE, because TimescaleDB adds the chunks to the statement it is given: kept for a second call in one
    -- session, a plain statement would name chunks that are gone. Reader: everything, to read.
    EXECUTE 'GRANT USAGE ON SCHEMA public, telemetry TO gpu_owner, gpu_writer, gpu_reader';
    EXECUTE 'GRANT SELECT ON ALL TABLES IN SCHEMA public, telemetry TO gpu_reader, gpu_writer';
    EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO gpu_reader, gpu_writer';
    EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA telemetry GRANT SELECT ON TABLES TO gpu_reader, gpu_writer';

    -- Writer: adds rows, moves what is kept up to date; deletes nothing.
    EXECUTE 'GRANT INSERT ON gpu_metrics, gpu_events, gpu_snapshots, gpu_health_scores, gpu_failure_predictions TO gpu_writer';
    EXECUTE 'GRANT INSERT, UPDATE ON gpus, gpu_latest, kafka_offsets TO gpu_writer';
    EXECUTE 'GRANT INSERT, UPDATE, DELETE ON gpu_history TO gpu_writer';

    -- Owner: everything in these schemas.
    EXECUTE 'GRANT ALL ON SCHEMA public, telemetry TO gpu_owner';
    EXECUTE 'GRANT ALL ON ALL TABLES IN SCHEMA public, telemetry TO gpu_owner';
    EXECUTE 'GRANT ALL ON ALL SEQUENCES IN SCHEMA public, telemetry TO gpu_owner';
    EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO gpu_owner';
    EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA telemetry GRANT ALL ON TABLES TO gpu_owner';
END
$$;
