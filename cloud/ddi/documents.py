"""The documents of the protocol, from an action. Pure. `root` is the address of the device: …/{tenant}/controller/v1/{id}."""

from __future__ import annotations

from typing import Any

from cloud.ddi.actions import Action, State


def sleep_text(seconds: int) -> str:
    """HH:MM:SS."""
    seconds = max(1, min(seconds, 24 * 3600 - 1))
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def base(
    root: str, poll_s: int, action: Action | None, installed: Action | None, asks_attributes: bool
) -> dict[str, Any]:
    """`action`: the one that is under way; `installed`: the last one that was installed; None where there is none."""
    links: dict[str, Any] = {}
    if action is not None:
        kind = "cancelAction" if action.state is State.CANCELING else "deploymentBase"
        links[kind] = {"href": f"{root}/{kind}/{action.id}"}
    if installed is not None:
        links["installedBase"] = {"href": f"{root}/installedBase/{installed.id}"}
    if asks_attributes:
        links["configData"] = {"href": f"{root}/configData"}
    return {"config": {"polling": {"sleep": sleep_text(poll_s)}}, "_links": links}


def deployment(root: str, action: Action) -> dict[str, Any]:
    chunk = {"part": "os", "version": action.version, "name": action.name, "artifacts": artifacts(root, action)}
    return {"id": str(action.id), "deployment": {"download": "forced", "update": "forced", "chunks": [chunk]}}


def artifacts(root: str, action: Action) -> list[dict[str, Any]]:
    """Where the client asks over TLS the links are `download` and `md5sum`, else `download-http` and `md5sum-http`."""
    at = f"{root}/softwaremodules/{action.id}/artifacts/{action.filename}"
    suffix = "" if root.startswith("https:") else "-http"
    links = {f"download{suffix}": {"href": at}, f"md5sum{suffix}": {"href": f"{at}.MD5SUM"}}
    hashes = {"sha1": action.sha1, "md5": action.md5, "sha256": action.sha256}
    return [{"filename": action.filename, "hashes": hashes, "size": action.size_bytes, "_links": links}]


def cancel(action: Action) -> dict[str, Any]:
    return {"id": str(action.id), "cancelAction": {"stopId": str(action.id)}}
