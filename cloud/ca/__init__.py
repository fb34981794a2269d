"""The certificate authority of the fleet: a small one of our own (`local`), or step-ca (`step`), behind one interface."""
