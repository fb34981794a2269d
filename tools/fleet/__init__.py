"""Many emulated devices, each a real uplink over a real outbox, against a real broker and a real cloud."""
