"""The whole pipeline on one machine without Docker: the roles of compose as child processes, an embedded broker and
an embedded TimescaleDB in place of the two servers."""
