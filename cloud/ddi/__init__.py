"""hawkBit's Direct Device Integration: existing update clients (SWUpdate, rauc-hawkbit-updater) against this cloud.

GET  /{tenant}/controller/v1/{id}                                           what is to be done, and when to ask again
PUT  /{tenant}/controller/v1/{id}/configData                                what the device tells of itself
GET  /{tenant}/controller/v1/{id}/deploymentBase/{action}                   the artifact to install
POST /{tenant}/controller/v1/{id}/deploymentBase/{action}/feedback          how it goes
GET  /{tenant}/controller/v1/{id}/cancelAction/{action}                     the action to stop
POST /{tenant}/controller/v1/{id}/cancelAction/{action}/feedback            whether it was stopped
GET  /{tenant}/controller/v1/{id}/softwaremodules/{module}/artifacts        the files of it; one by one under their names

- What a device is to install comes from the same rollouts as for our own devices: its slot set `os`.
- `closed` with `success` means installed, never confirmed: such a client does not say whether what it installed runs well.
- These clients check the signature of their own image format; the offline signature of the targets is checked here, before a
  target is offered.
"""
