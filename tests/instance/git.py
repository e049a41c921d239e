"""Git over smart HTTP: `git http-backend` behind whatever authentication the route has. Fetching only."""

from __future__ import annotations

import asyncio
import os

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .state import Instance

_PATHS = {("GET", "info/refs"), ("POST", "git-upload-pack")}


async def git_response(instance: Instance, request: Request, repository: str, path: str) -> Response:
    """Answer ``info/refs`` or ``git-upload-pack`` of a repository. The caller has checked who asks."""
    if (request.method, path) not in _PATHS:
        return PlainTextResponse("not found\n", 404)
    if path == "info/refs" and request.query_params.get("service") != "git-upload-pack":
        return PlainTextResponse("only git-upload-pack is served\n", 403)
    folder = instance.repository_folder(repository)
    if not (folder / "HEAD").is_file():
        return PlainTextResponse("repository not found\n", 404)
    body = await request.body()
    process = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "3",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_1": "true",
            "GIT_CONFIG_KEY_2": "uploadpack.allowFilter",
            "GIT_CONFIG_VALUE_2": "true",
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": request.url.query,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        },
    )
    stdout, stderr = await process.communicate(body)
    head, separator, content = stdout.partition(b"\r\n\r\n")
    if process.returncode != 0 or not separator:
        return PlainTextResponse(f"git: {stderr.decode(errors='replace')}\n", 500)
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    return Response(content, int(headers.pop("Status", "200").split()[0]), headers)
