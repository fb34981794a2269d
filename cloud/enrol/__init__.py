"""How a device comes to its certificate: one-time tokens, enrolment, renewal, revocation, replacement."""
