"""The OpenAPI description: servers, security scheme, forms."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from image2sentence.server.forms import FORM, JSON, PICTURE
from image2sentence.server.schemas import Problem, ReferenceFields

TOKEN_SCHEME = "token"
BINARY = "application/octet-stream"
_CONTENT = {"schema": {"type": "string", "format": "binary"}}
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": _CONTENT}}}
FILE: dict[int | str, dict[str, Any]] = {200: {"content": {BINARY: _CONTENT}}, 403: {"model": Problem}}


def operation_id(route: APIRoute) -> str:
    """The name of a route's function, for names in generated clients."""
    return route.name


def describe_form(fields: type[ReferenceFields], examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI description of what `read_form` reads."""
    schema = fields.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "A picture file: JPEG, PNG, WebP, GIF ..."}
    texts = {name: _form_field(one) for name, one in schema["properties"].items()}
    form = schema | {"title": f"{schema['title']}Form", "properties": {PICTURE: file, **texts}}
    shown = {name: {"value": value} for name, value in examples.items()}
    content = {FORM: {"schema": form}, JSON: {"schema": schema, "examples": shown}}
    return {"requestBody": {"required": True, "content": content}}


def _form_field(field: dict[str, Any]) -> dict[str, Any]:
    """A field of a form, which cannot say null, nor write the numbers of a vector."""
    kinds: list[dict[str, Any]] = [one for one in field.get("anyOf", []) if one.get("type") != "null"]
    if not kinds:
        return field
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default", "examples")}
    return rest | kinds[0]


def describe(app: FastAPI, prefix: str, guarded: tuple[str, ...], has_token: bool) -> dict[str, Any]:
    """The description of all routes.

    Args:
        app: The application.
        prefix: Path below which the server is reached; "" for none.
        guarded: Beginnings of the paths that want the token.
        has_token: Whether the server has a token.
    """
    described = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        routes=app.routes,
        servers=[{"url": prefix or "/"}],
    )
    scheme = {
        "type": "http",
        "scheme": "bearer",
        "description": "The token that the server was started with.",
    }
    described.setdefault("components", {})["securitySchemes"] = {TOKEN_SCHEME: scheme}
    for path, operations in described["paths"].items():
        wanted = path.startswith(guarded)
        for operation in operations.values():
            if wanted:
                operation["security"] = [{TOKEN_SCHEME: []}] if has_token else [{}, {TOKEN_SCHEME: []}]
    return described
