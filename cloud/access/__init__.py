"""Who may do what in the cloud: operators and their tokens, sessions, roles. Devices have certificates, not roles."""
