"""The HTTP side: routes, errors, and the page."""

from __future__ import annotations

import logging
import time
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
from image2sentence.server.admission import Admission, Busy, Gone, Rates, client_of, unless_gone
from image2sentence.server.batching import Batcher
from image2sentence.server.metrics import CONTENT_TYPE, Measured, Metrics
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
from image2sentence.server.service import Asked, NotThere, Ranking, ReadPicture, SearchService, Wanted
from image2sentence.server.uploads import FORM, JSON, PICTURE, UploadLimits, first_problem, read_form
from image2sentence.server.workers import Workers

THUMBNAIL_SIDE = 384
IMAGE_SIDE = 1_280
READERS = 2
"""Threads that read references. The image graph gains nothing from batches, so each picture is read by itself."""

WAITING_FOR_PICTURES = 512
PICTURE_COST = 0.05
"""What a picture of the gallery, or a list, costs of a client's rate; a query costs 1."""

_STATUS = ((NotThere, 404), (Busy, 429), (Gone, 499), (QueryError, 422), (ImageError, 422))
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 415, 422, 429, 503)
}
_log = logging.getLogger("image2sentence.server")


@dataclass(frozen=True)
class Load:
    """How much at once, and how fast.

    Attributes:
        waiting: Queries that may be inside beside the one being answered, from before their body is read; one more
            is answered 429.
        bodies: Bytes that their bodies may hold together.
        batch: Most queries answered in one call of the model; 1 answers each alone.
        rate: Queries a second from one client; 0 counts nobody.
    """

    waiting: int = 32
    bodies: int = 100 << 20
    batch: int = 32
    rate: float = 0.0


@dataclass(frozen=True)
class Serving:
    """What every request is answered with."""

    service: SearchService
    limits: UploadLimits
    admission: Admission
    rates: Rates
    readers: Workers
    queries: Batcher[Wanted, Ranking]
    pictures: Workers
    metrics: Metrics

    @classmethod
    def of(cls, service: SearchService, limits: UploadLimits, load: Load) -> Serving:
        """The threads, queues and counts around a service."""
        metrics = Metrics()
        admission = Admission(1 + load.waiting, load.bodies)
        metrics.gauge("queries_inside", "Queries waiting or being answered.", lambda: admission.inside)
        metrics.gauge("body_bytes_held", "Bytes of requests held in memory.", lambda: admission.held)
        metrics.gauge("gallery_pictures", "Pictures that can be found.", lambda: len(service))
        return cls(
            service,
            limits,
            admission,
            Rates(load.rate),
            Workers(READERS, load.waiting + 1),
            Batcher(service.search_many, load.batch, metrics.batches.observe),
            Workers(2, WAITING_FOR_PICTURES),
            metrics,
        )

    async def read(self, asked: Asked) -> ReadPicture | None:
        """The reference as the model reads it; None where none is asked with."""
        if asked == Asked():
            return None
        return self.service.known(asked) or await self.readers.run(self.service.read, asked)

    def close(self) -> None:
        """Let running calls finish and drop those that wait."""
        self.queries.close()
        self.readers.close()
        self.pictures.close()


def create_app(
    service: SearchService,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    limits: UploadLimits | None = None,
    load: Load | None = None,
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        service: The model and the gallery; its owner prepares and closes them.
        token: What requests must bring as `Authorization: Bearer TOKEN`; None lets everyone ask.
        hosts: Names the server may be called by (`Host` header); None for any.
        limits: Largest and slowest request body.
        load: How much at once, and how fast.
    """
    app = FastAPI(
        title="image2sentence",
        version=__version__,
        summary="Search pictures with a picture plus words.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_closing,
    )
    app.state.token = token
    app.state.serving = Serving.of(service, limits or UploadLimits(), load or Load())
    app.include_router(open_routes)
    app.include_router(guarded_routes)
    app.include_router(routes)
    app.mount("/static", StaticFiles(directory=_page_folder()))
    app.add_exception_handler(Image2SentenceError, _on_own_error)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_any_error)
    app.add_middleware(Guard, hosts=hosts)
    app.add_middleware(Measured, metrics=app.state.serving.metrics)
    return app


@asynccontextmanager
async def _closing(app: FastAPI) -> AsyncIterator[None]:
    yield
    serving: Serving = app.state.serving
    serving.close()


def _page_folder() -> Path:
    return Path(str(resources.files("image2sentence"))) / "server" / "static"


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


PageSize = Annotated[int, Query(ge=1, le=MOST_RESULTS)]
Offset = Annotated[int, Query(ge=0, le=DEEPEST_OFFSET)]


# Coroutines, as all that requests go through: FastAPI sends plain functions to a thread, which costs more than they do.
async def _spend_query(request: Request) -> None:
    _serving(request).rates.spend(client_of(request))


async def _spend_picture(request: Request) -> None:
    _serving(request).rates.spend(client_of(request), PICTURE_COST)


ASKS = [Depends(_spend_query)]
LOOKS = [Depends(_spend_picture)]
open_routes = APIRouter()
guarded_routes = APIRouter(dependencies=[Depends(require_token)])
routes = APIRouter(prefix="/v1", dependencies=[Depends(require_token)], responses=_PROBLEMS)


def _form(fields: type[ReferenceFields]) -> dict[str, Any]:
    """The OpenAPI description of what `read_form` reads."""
    schema = fields.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "A picture file: JPEG, PNG, WebP, GIF ..."}
    form = schema | {"properties": {PICTURE: file, **schema["properties"]}}
    content = {FORM: {"schema": form}, JSON: {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


@open_routes.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(_page_folder() / "index.html")


@open_routes.get("/health")
async def health(request: Request) -> Health:
    """Whether the server answers at all."""
    serving = _serving(request)
    return Health(status="ok", pictures=len(serving.service))


@open_routes.get("/ready", responses={503: {"model": Problem}})
async def ready(request: Request) -> Health:
    """Whether queries can be answered: the model is loaded and the gallery can be read."""
    serving = _serving(request)
    await serving.pictures.run(serving.service.check)
    return Health(status="ready", pictures=len(serving.service))


@guarded_routes.get("/metrics", response_class=Response, responses={401: {"model": Problem}})
async def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    serving = _serving(request)
    return Response(serving.metrics.text(), media_type=CONTENT_TYPE)


@routes.post("/search", response_model=SearchAnswer, openapi_extra=_form(SearchFields), dependencies=ASKS)
async def search(request: Request) -> Response:
    """Rank the gallery by a picture, words, or both.

    The reference is one of `picture`, `item` and `sentence`. With words, the reference itself is left out.
    """
    serving = _serving(request)
    with serving.admission.place() as place:
        fields, picture = await read_form(request, SearchFields, serving.limits, place)
        answer = await unless_gone(request, _searched(serving, fields, picture))
    return Response(answer.model_dump_json(), media_type=JSON)  # checked when it was made; not once more


async def _searched(serving: Serving, fields: SearchFields, picture: bytes | None) -> SearchAnswer:
    start = time.perf_counter()
    read = await serving.read(Asked(picture, fields.item, fields.sentence))
    spent = {"read_ms": round(1000 * (time.perf_counter() - start), 1)}
    wanted = Wanted(read, fields.item, fields.text.strip(), fields.k, fields.offset)
    ranking = await serving.queries.ask(wanted)
    spent |= ranking.milliseconds
    serving.metrics.query(spent)
    return _answer(ranking, fields.offset, spent)


def _answer(ranking: Ranking, offset: int, milliseconds: dict[str, float]) -> SearchAnswer:
    return SearchAnswer(
        sentence=None if ranking.read is None else ranking.read.name,
        total=ranking.total,
        offset=offset,
        results=[
            Result(
                id=found.picture.id,
                width=found.picture.width,
                height=found.picture.height,
                rank=found.rank,
                score=round(found.score, 5),
            )
            for found in ranking.results
        ],
        not_understood=[NotUnderstood(word=u.word, near=list(u.near)) for u in ranking.not_understood],
        milliseconds=milliseconds,
    )


@routes.post("/sentence", openapi_extra=_form(ReferenceFields), dependencies=ASKS)
async def sentence(request: Request) -> SentenceAnswer:
    """Where each pseudo-word of a picture's sentence looks.

    The reference is one of `picture`, `item` and `sentence`.
    """
    serving = _serving(request)
    with serving.admission.place() as place:
        fields, picture = await read_form(request, ReferenceFields, serving.limits, place)
        read = await unless_gone(request, serving.read(Asked(picture, fields.item, fields.sentence)))
    if read is None:
        raise QueryError("expected a reference: a picture, an item's id, or a sentence's name")
    return SentenceAnswer(sentence=read.name, pseudo_words=_pseudo_words(read), region=read.region)


@routes.get("/items", dependencies=LOOKS)
async def items(request: Request, k: PageSize = 24, offset: Offset = 0) -> Items:
    """A page of the gallery, in its own order."""
    serving = _serving(request)
    page = serving.service.items(k, offset)
    return Items(total=len(serving.service), items=[_item(picture) for picture in page])


@routes.get("/items/{number}", dependencies=LOOKS)
async def item(number: int, request: Request) -> Item:
    """One picture's size."""
    serving = _serving(request)
    return _item(serving.service.item(number))


@routes.get("/items/{number}/thumbnail", response_class=Response, dependencies=LOOKS)
async def thumbnail(number: int, request: Request) -> Response:
    """One picture as a small JPEG."""
    serving = _serving(request)
    return await _jpeg(serving, number, THUMBNAIL_SIDE)


@routes.get("/items/{number}/image", response_class=Response, dependencies=LOOKS)
async def image(number: int, request: Request) -> Response:
    """One picture as a JPEG large enough to look at."""
    serving = _serving(request)
    return await _jpeg(serving, number, IMAGE_SIDE)


async def _jpeg(serving: Serving, number: int, side: int) -> Response:
    content = serving.service.jpeg_made(number, side)
    if content is None:
        content = await serving.pictures.run(serving.service.jpeg, number, side)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


def _item(picture: Picture) -> Item:
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
            later = {"Retry-After": str(error.seconds)} if isinstance(error, Busy) else None
            return _problem(status, str(error), later)
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
