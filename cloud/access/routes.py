"""Which role each route needs: one row for each, and a test that no route is without one.

PUBLIC routes tell nothing of the fleet. A page is a file without data; what it shows comes from routes with a role, and where
nobody is signed in, it leads to /login.
"""

from __future__ import annotations

from cloud.access.roles import Role

PUBLIC = None
API = "/api/v1"

#: (method, path) → role
ROLES: dict[tuple[str, str], Role | None] = {
    ("GET", "/"): PUBLIC,
    ("GET", "/app.css"): PUBLIC,
    ("GET", "/app.js"): PUBLIC,
    ("GET", "/assets"): PUBLIC,
    ("GET", "/assets.js"): PUBLIC,
    ("GET", "/fleet"): PUBLIC,
    ("GET", "/fleet.js"): PUBLIC,
    ("GET", "/rollouts"): PUBLIC,
    ("GET", "/rollouts.js"): PUBLIC,
    ("GET", "/audit"): PUBLIC,
    ("GET", "/audit.js"): PUBLIC,
    ("GET", "/page.js"): PUBLIC,
    ("GET", "/icon.svg"): PUBLIC,
    ("GET", "/session.js"): PUBLIC,
    ("GET", "/login"): PUBLIC,
    ("GET", "/login.js"): PUBLIC,
    ("GET", "/login/oidc"): PUBLIC,
    ("GET", "/login/oidc/callback"): PUBLIC,
    ("GET", f"{API}/session"): PUBLIC,
    ("POST", f"{API}/login"): PUBLIC,
    ("POST", f"{API}/logout"): Role.VIEWER,
    ("GET", "/metrics"): Role.VIEWER,
    ("GET", f"{API}/openapi.json"): PUBLIC,
    ("GET", f"{API}/health"): PUBLIC,
    ("GET", f"{API}/summary"): Role.VIEWER,
    ("GET", f"{API}/stream"): Role.VIEWER,
    ("GET", f"{API}/devices"): Role.VIEWER,
    ("GET", f"{API}/events"): Role.VIEWER,
    ("GET", f"{API}/events/{{number}}/payload"): Role.VIEWER,
    ("GET", f"{API}/decisions"): Role.VIEWER,
    ("GET", f"{API}/rejections"): Role.VIEWER,
    ("GET", f"{API}/assets"): Role.VIEWER,
    ("GET", f"{API}/alarms"): Role.VIEWER,
    ("GET", f"{API}/series"): Role.VIEWER,
    ("GET", f"{API}/export.parquet"): Role.VIEWER,
    ("GET", f"{API}/audit"): Role.VIEWER,
    ("GET", f"{API}/audit/verify"): Role.RELEASER,
    ("GET", f"{API}/devices/{{device}}/proof"): Role.VIEWER,
    ("GET", f"{API}/key"): PUBLIC,
    ("GET", f"{API}/devices/{{device}}/desired"): Role.VIEWER,
    ("POST", f"{API}/devices/{{device}}/desired"): Role.OPERATOR,
    ("GET", f"{API}/devices/{{device}}/commands"): Role.VIEWER,
    ("GET", f"{API}/devices/{{device}}/commands/{{number}}"): Role.VIEWER,
    ("POST", f"{API}/devices/{{device}}/commands"): Role.OPERATOR,
    ("GET", f"{API}/identities"): Role.VIEWER,
    ("GET", f"{API}/identities/{{device}}"): Role.VIEWER,
    ("POST", f"{API}/identities/{{device}}/token"): Role.ADMIN,
    ("POST", f"{API}/identities/{{device}}/replace"): Role.ADMIN,
    ("POST", f"{API}/identities/{{device}}/revoke"): Role.ADMIN,
    ("GET", f"{API}/rollouts"): Role.VIEWER,
    ("POST", f"{API}/rollouts"): Role.RELEASER,
    ("GET", f"{API}/rollouts/{{rollout}}"): Role.VIEWER,
    ("GET", f"{API}/rollouts/{{rollout}}/devices"): Role.VIEWER,
    ("GET", f"{API}/rollouts/{{rollout}}/stream"): Role.VIEWER,
    ("POST", f"{API}/rollouts/{{rollout}}/start"): Role.RELEASER,
    ("POST", f"{API}/rollouts/{{rollout}}/approve"): Role.RELEASER,
    ("POST", f"{API}/rollouts/{{rollout}}/pause"): Role.RELEASER,
    ("POST", f"{API}/rollouts/{{rollout}}/resume"): Role.RELEASER,
    ("POST", f"{API}/rollouts/{{rollout}}/abort"): Role.RELEASER,
    ("GET", f"{API}/fleet/devices"): Role.VIEWER,
    ("GET", f"{API}/fleet/devices/{{device}}"): Role.VIEWER,
    ("POST", f"{API}/fleet/devices/{{device}}/tags"): Role.OPERATOR,
    ("GET", f"{API}/experiments"): Role.VIEWER,
    ("POST", f"{API}/experiments"): Role.RELEASER,
    ("GET", f"{API}/experiments/{{experiment}}"): Role.VIEWER,
    ("POST", f"{API}/experiments/{{experiment}}/outcomes"): Role.OPERATOR,
    ("POST", f"{API}/experiments/{{experiment}}/stop"): Role.RELEASER,
}
