"""What the cloud keeps: SQLAlchemy Core on SQLite. One writer (the ingest worker), many readers."""
