"""`gudgeon up`: the larger cloud on one machine, from the real packages: Mosquitto, PostgreSQL, ingest workers, web server."""
