"""The HTTP side: routes, errors, and the page."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from image2sentence import __version__
from image2sentence.errors import GalleryError, Image2SentenceError, ImageError, QueryError
from image2sentence.gallery.store import Picture
from image2sentence.query import Result as Ranked
from image2sentence.server.models import (
    DEEPEST_OFFSET,
    MOST_RESULTS,
    Health,
    Item,
    Items,
    NotUnderstood,
    Problem,
    PseudoWord,
    ReferenceFields,
    Result,
    SearchAnswer,
    SearchFields,
    SentenceAnswer,
)
from image2sentence.server.security import Guard, require_token
from image2sentence.server.service import Asked, NotThere, ReadPicture, SearchService
from image2sentence.server.uploads import PICTURE, UploadLimits, first_problem, read_form
from image2sentence.server.workers import Busy, Workers

THUMBNAIL_SIDE = 384
IMAGE_SIDE = 1_280
WAITING = 32
WAITING_FOR_PICTURES = 512

_STATUS = ((NotThere, 404), (Busy, 429), (QueryError, 422), (ImageError, 422))
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 415, 422, 429, 503)
}
_log = logging.getLogger("image2sentence.server")


@dataclass(frozen=True)
class Serving:
    """What every request is answered with: queries go through one thread, pictures are made in two others."""

    service: SearchService
    queries: Workers
    pictures: Workers
    limits: UploadLimits


def create_app(
    service: SearchService,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    limits: UploadLimits | None = None,
    waiting: int = WAITING,
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        service: The model and the gallery; its owner prepares and closes them.
        token: What requests must bring as `Authorization: Bearer TOKEN`; None lets everyone ask.
        hosts: Names the server may be called by (`Host` header); None for any.
        limits: Largest and slowest request body.
        waiting: Queries that may wait for the model; one more is answered 429.
    """
    app = FastAPI(
        title="image2sentence",
        version=__version__,
        summary="Search pictures with a picture plus words.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_closing_workers,
    )
    app.state.token = token
    app.state.serving = Serving(
        service, Workers(1, waiting), Workers(2, WAITING_FOR_PICTURES), limits or UploadLimits()
    )
    app.include_router(open_routes)
    app.include_router(routes)
    app.mount("/static", StaticFiles(directory=_page_folder()))
    app.add_exception_handler(Image2SentenceError, _on_own_error)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_any_error)
    app.add_middleware(Guard, hosts=hosts)
    return app


@asynccontextmanager
async def _closing_workers(app: FastAPI) -> AsyncIterator[None]:
    yield
    serving: Serving = app.state.serving
    serving.queries.close()
    serving.pictures.close()


def _page_folder() -> Path:
    return Path(str(resources.files("image2sentence"))) / "server" / "static"


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


Served = Annotated[Serving, Depends(_serving)]
PageSize = Annotated[int, Query(ge=1, le=MOST_RESULTS)]
Offset = Annotated[int, Query(ge=0, le=DEEPEST_OFFSET)]

open_routes = APIRouter()
routes = APIRouter(prefix="/v1", dependencies=[Depends(require_token)], responses=_PROBLEMS)


def _form(fields: type[ReferenceFields]) -> dict[str, Any]:
    """The OpenAPI description of a form that `read_form` reads."""
    schema = fields.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "A picture file: JPEG, PNG, WebP, GIF ..."}
    schema["properties"] = {PICTURE: file, **schema["properties"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@open_routes.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(_page_folder() / "index.html")


@open_routes.get("/health")
async def health(serving: Served) -> Health:
    """Whether the server answers at all."""
    return Health(status="ok", pictures=len(serving.service))


@open_routes.get("/ready", responses={503: {"model": Problem}})
async def ready(serving: Served) -> Health:
    """Whether queries can be answered: the model is loaded and the gallery can be read."""
    await serving.pictures.run(serving.service.check)
    return Health(status="ready", pictures=len(serving.service))


@routes.post("/search", openapi_extra=_form(SearchFields))
async def search(request: Request, serving: Served) -> SearchAnswer:
    """Rank the gallery by a picture, words, or both.

    The reference is one of `picture`, `item` and `sentence`. With words, the reference itself is left out.
    """
    fields, picture = await read_form(request, SearchFields, serving.limits)
    asked = Asked(picture, fields.item, fields.sentence)
    found = await serving.queries.run(serving.service.search, asked, fields.text, fields.k, fields.offset)
    answer = found.answer
    return SearchAnswer(
        sentence=None if found.read is None else found.read.name,
        total=answer.total,
        offset=fields.offset,
        results=[
            Result(**_item(result).model_dump(), rank=result.rank, score=round(result.score, 5))
            for result in answer.results
        ],
        not_understood=[NotUnderstood(word=u.word, near=list(u.near)) for u in answer.not_understood],
        milliseconds={stage: round(spent, 1) for stage, spent in answer.milliseconds.items()},
    )


@routes.post("/sentence", openapi_extra=_form(ReferenceFields))
async def sentence(request: Request, serving: Served) -> SentenceAnswer:
    """Where each pseudo-word of a picture's sentence looks.

    The reference is one of `picture`, `item` and `sentence`.
    """
    fields, picture = await read_form(request, ReferenceFields, serving.limits)
    asked = Asked(picture, fields.item, fields.sentence)
    read = await serving.queries.run(serving.service.read, asked)
    return SentenceAnswer(sentence=read.name, pseudo_words=_pseudo_words(read), region=read.region)


@routes.get("/items")
async def items(serving: Served, k: PageSize = 24, offset: Offset = 0) -> Items:
    """A page of the gallery, in its own order."""
    page = serving.service.items(k, offset)
    return Items(total=len(serving.service), items=[_item(picture) for picture in page])


@routes.get("/items/{number}")
async def item(number: int, serving: Served) -> Item:
    """One picture's size."""
    return _item(serving.service.item(number))


@routes.get("/items/{number}/thumbnail", response_class=Response)
async def thumbnail(number: int, serving: Served) -> Response:
    """One picture as a small JPEG."""
    return await _jpeg(serving, number, THUMBNAIL_SIDE)


@routes.get("/items/{number}/image", response_class=Response)
async def image(number: int, serving: Served) -> Response:
    """One picture as a JPEG large enough to look at."""
    return await _jpeg(serving, number, IMAGE_SIDE)


async def _jpeg(serving: Serving, number: int, side: int) -> Response:
    content = serving.service.jpeg_made(number, side)
    if content is None:
        content = await serving.pictures.run(serving.service.jpeg, number, side)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


def _item(picture: Picture | Ranked) -> Item:
    return Item(id=picture.id, width=picture.width, height=picture.height)


def _pseudo_words(read: ReadPicture) -> list[PseudoWord]:
    """Empty where the encoder cannot tell where it looks."""
    if read.attention is None or read.gates is None:
        return []
    return [
        PseudoWord(attention=attention.astype(float).round(6).tolist(), gate=round(float(gate), 4))
        for attention, gate in zip(read.attention, read.gates, strict=True)
    ]


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _on_own_error(request: Request, error: Exception) -> Response:
    """Errors of a request say what is wrong with it; those of model or gallery hold paths, and go to the log."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return _problem(status, str(error), {"Retry-After": "1"} if status == 429 else None)
    _log.error("%s", error)
    what = "gallery" if isinstance(error, GalleryError) else "model"
    return _problem(503, f"the {what} cannot be used now; the server's log says why")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _problem(error.status_code, error.detail, dict(error.headers or {}))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _problem(422, first_problem(error.errors()))


async def _on_any_error(request: Request, error: Exception) -> Response:
    """Starlette logs the error itself; the asker learns only that there was one."""
    return _problem(500, "the server made a mistake; its log says which")
