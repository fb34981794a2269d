"""`make kills`: kill -9 of producer, `link` and ingest worker, thousands of times, and the ledger of what arrived."""
