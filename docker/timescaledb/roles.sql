-- Logins of the services, members of the group roles that `gpumon migrate` makes. Run at every start: passwords follow docker/.env.
\set ON_ERROR_STOP on
\getenv grafana_password GRAFANA_DB_PASSWORD
\getenv sink_password SINK_DB_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM (VALUES ('grafana'), ('timescale_sink')) AS logins (name)
WHERE name NOT IN (SELECT rolname FROM pg_roles)
\gexec

BEGIN;
-- A password in a statement must not reach the server's log, whatever its settings.
SET LOCAL log_statement = 'none';
SET LOCAL log_min_error_statement = 'panic';
SET LOCAL log_min_duration_statement = -1;
ALTER ROLE grafana PASSWORD :'grafana_password';
ALTER ROLE timescale_sink PASSWORD :'sink_password';
COMMIT;

GRANT gpu_reader TO grafana;
GRANT gpu_writer TO timescale_sink;
-- A panel over too much data gives up instead of holding the database.
ALTER ROLE grafana SET statement_timeout = '60s';
ALTER ROLE grafana SET default_transaction_read_only = on;
-- A transaction that somebody's query opened and did not end would keep its connection, and fail who gets it next.
ALTER ROLE grafana SET idle_in_transaction_session_timeout = '60s';
