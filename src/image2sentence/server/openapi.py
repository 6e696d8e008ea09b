"""The OpenAPI description: servers, security scheme, forms."""

from __future__ import annotations

from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from image2sentence.server.forms import FORM, JSON, PICTURE
from image2sentence.server.schemas import Problem, ReferenceFields, SearchFields

Responses: TypeAlias = dict[int | str, dict[str, Any]]

TOKEN_SCHEME = "token"
BINARY = "application/octet-stream"
PLAIN = "text/plain"
_SCHEMA = "#/components/schemas/"
_CONTENT = {"schema": {"type": "string", "format": "binary"}}
_LATER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
PROBLEMS: Responses = {status: {"model": Problem} for status in (400, 401, 403, 404, 422, 429, 503)}
PROBLEMS[429]["headers"] = _LATER
BODY_PROBLEMS: Responses = {status: {"model": Problem} for status in (408, 413, 415)}
"""What only those with a body are answered, beside `PROBLEMS`."""

JPEG: Responses = {200: {"content": {"image/jpeg": _CONTENT}}}
FILE: Responses = {200: {"content": {BINARY: _CONTENT}}}
TEXT: Responses = {200: {"content": {PLAIN: {"schema": {"type": "string"}}}}}


def operation_id(route: APIRoute) -> str:
    """The name of a route's function, for names in generated clients."""
    return route.name


def describe_form(fields: type[ReferenceFields]) -> dict[str, Any]:
    """The OpenAPI description of a form that `read_form` reads."""
    return _body(FORM, {"schema": {"$ref": _SCHEMA + _form_name(fields)}})


def describe_json(fields: type[ReferenceFields], examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI description of JSON that `read_form` reads.

    It is an operation of its own: generators of clients expect one type of content of each.
    """
    shown = {name: {"value": value} for name, value in examples.items()}
    return _body(JSON, {"schema": {"$ref": _SCHEMA + fields.__name__}, "examples": shown})


def _body(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: content}}}


def form_schemas() -> dict[str, Any]:
    """The schemas of request bodies by name, so that generated clients name their classes so."""
    kinds = (SearchFields, ReferenceFields)
    _, described = models_json_schema(
        [(one, "validation") for one in kinds], ref_template=_SCHEMA + "{model}"
    )
    schemas: dict[str, Any] = described["$defs"]
    file = {"type": "string", "format": "binary", "description": "A picture file: JPEG, PNG, WebP, GIF ..."}
    for kind in kinds:
        schema, name = schemas[kind.__name__], _form_name(kind)
        fields = {field: _left_out(one) for field, one in schema["properties"].items()}
        texts = {field: _form_field(one) for field, one in fields.items()}
        schemas[name] = schema | {"title": name, "properties": {PICTURE: file, **texts}}
        schema["properties"] = fields
    return schemas


def _left_out(field: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out, its default in words: generators ask for fields that have a default."""
    rest = {key: value for key, value in field.items() if key != "default"}
    told = field.get("default") not in (None, "", [])
    return rest | {"description": f"{rest['description']} Default: {field['default']}."} if told else rest


def _form_name(fields: type[ReferenceFields]) -> str:
    return fields.__name__.replace("Fields", "Form")


def _form_field(field: dict[str, Any]) -> dict[str, Any]:
    """A field of a form, which cannot say null, nor write the numbers of a vector."""
    kinds: list[dict[str, Any]] = [one for one in field.get("anyOf", []) if one.get("type") != "null"]
    if not kinds:
        return field
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "examples")}
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
    components = described.setdefault("components", {})
    components["securitySchemes"] = {TOKEN_SCHEME: scheme}
    components["schemas"] = dict(sorted((components.get("schemas", {}) | form_schemas()).items()))
    for path, operations in described["paths"].items():
        wanted = path.startswith(guarded)
        for operation in operations.values():
            if wanted:
                operation["security"] = [{TOKEN_SCHEME: []}] if has_token else [{}, {TOKEN_SCHEME: []}]
    return described
