"""The larger cloud on this machine: Mosquitto, PostgreSQL, ingest workers and the web server, from their real packages."""
