"""The HTTP side: routes, errors, and the page."""

from __future__ import annotations

import hashlib
import logging
import mimetypes
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.cors import CORSMiddleware

from image2sentence import __version__
from image2sentence.errors import GalleryError, Image2SentenceError, ImageError, QueryError
from image2sentence.gallery.filters.language import MAX_FILTER_LENGTH
from image2sentence.server.admission import Busy, Gone, Rates, client_of, unless_gone
from image2sentence.server.fetching import Fetcher, fetches_from, fetching_routes
from image2sentence.server.forms import JSON, UploadLimits, first_problem, read_form
from image2sentence.server.local.routes import Local, is_local, local_routes
from image2sentence.server.metrics import CONTENT_TYPE, Measured
from image2sentence.server.middleware import REQUEST_ID, HeadRequests, LogFormat, PathPrefix, RequestIds
from image2sentence.server.openapi import (
    BINARY,
    BODY_PROBLEMS,
    FILE,
    JPEG,
    PROBLEMS,
    TEXT,
    describe,
    describe_form,
    describe_json,
    operation_id,
)
from image2sentence.server.page_files import PageFiles, StaticFile, has_version
from image2sentence.server.requests import Load, Page, Serving
from image2sentence.server.schemas import (
    MAX_LIST_OFFSET,
    MAX_RESULTS,
    MAX_SIMILAR,
    MAX_TEXT_LENGTH,
    About,
    Health,
    Item,
    Items,
    Problem,
    ReferenceFields,
    SearchAnswer,
    SearchFields,
    SentenceAnswer,
    Similar,
    Values,
)
from image2sentence.server.security import (
    WRONG_TOKENS,
    AllowedHosts,
    Guard,
    is_on_this_computer,
    require_token,
    security_headers,
)
from image2sentence.server.service import THUMBNAIL_SIDE, NotThere, SearchService

IMAGE_SIDE = 1_280
PICTURE_COST = 0.05
"""What a picture of the gallery, or a list, costs of a client's rate; a query costs 1, and so does a list that is
filtered or sorted."""

RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Of onnxruntime-web's `dist` folder: what a browser loads to encode queries itself."""

SEARCHES: dict[str, dict[str, Any]] = {
    "words": {"text": "a striped shirt", "k": 10},
    "a picture of the gallery, changed": {"item": 12, "text": "but red", "not_text": ["dots"]},
}

SENTENCES = {"a picture of the gallery": {"item": 12}}

_STATUS = ((NotThere, 404), (Busy, 429), (Gone, 499), (QueryError, 422), (ImageError, 422))
_log = logging.getLogger("image2sentence.server")


@dataclass(frozen=True)
class Deployment:
    """Where a server stands.

    Attributes:
        prefix: Path below which it is reached, such as "/pictures", whether or not a proxy takes it off; "" for none.
        origins: Origins, such as "https://shop.example.org", whose pages may ask (CORS); "*" for any.
        access_log: Form of the access log's lines; None for no log.
        show_paths: Whether visitors see paths, and get original files; None for those on this computer only.
        fetch_from: Hosts from which pictures are fetched to ask with.
    """

    prefix: str = ""
    origins: frozenset[str] = frozenset()
    access_log: LogFormat | None = None
    show_paths: bool | None = False
    fetch_from: frozenset[str] = frozenset()


def create_app(
    service: SearchService,
    *,
    token: str | None = None,
    hosts: AllowedHosts | None = None,
    limits: UploadLimits | None = None,
    load: Load | None = None,
    runtime: Path | None = None,
    deployment: Deployment | None = None,
    local: Local | None = None,
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        service: The model and the gallery; its owner prepares and closes them.
        token: What requests must bring as `Authorization: Bearer TOKEN`; None lets everyone ask.
        hosts: Names the server may be called by (`Host` header); None for any.
        limits: Largest and slowest request body.
        load: How much at once, and how fast.
        runtime: onnxruntime-web's `dist` folder, so that browsers may encode queries themselves; None if not.
        deployment: Path prefix, origins and access log; by default none of them.
        local: What the page may do for those on this computer; None for nothing.
    """
    deployed = deployment or Deployment()
    app = FastAPI(
        title="image2sentence",
        version=__version__,
        summary="Search pictures with a picture plus words.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_running,
        generate_unique_id_function=operation_id,
    )
    app.openapi = lambda: describe(app, deployed.prefix, ("/v1/", "/metrics"), token is not None)  # type: ignore[method-assign]
    app.state.token = token
    app.state.show_paths = deployed.show_paths
    app.state.local = local
    app.state.wrong_tokens = Rates(WRONG_TOKENS)
    app.state.serving = Serving(service, limits or UploadLimits(), load or Load(), runtime)
    app.state.files = PageFiles(deployed.prefix)
    app.state.runtime_files = {}
    app.state.fetcher = Fetcher(deployed.fetch_from, app.state.serving.limits.body_bytes)
    # what is asked most comes first
    for router in (queries, routes, guarded_routes, local_routes, fetching_routes, open_routes):
        app.include_router(router)
    app.add_exception_handler(Image2SentenceError, _on_own_error)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_any_error)
    if deployed.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(deployed.origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=["Retry-After", REQUEST_ID],
        )
    headers = security_headers(runs_model=runtime is not None)
    app.add_middleware(Guard, hosts=hosts, headers=headers, origins=deployed.origins)
    app.add_middleware(HeadRequests)
    app.add_middleware(Measured, metrics=app.state.serving.metrics)
    if deployed.prefix:
        app.add_middleware(PathPrefix, prefix=deployed.prefix)
    app.add_middleware(RequestIds, log=deployed.access_log)
    return app


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    app.state.serving.start()
    yield
    if app.state.local is not None:
        app.state.local.close()
    app.state.fetcher.close()
    app.state.serving.close()


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


def _shows_paths(request: Request) -> bool:
    """Whether the client sees paths, and gets original files."""
    shown: bool | None = request.app.state.show_paths
    return is_on_this_computer(request) if shown is None else shown


# Coroutines, as all that requests go through: FastAPI sends plain functions to a thread, which costs more than they do.
async def _spend_query(request: Request) -> None:
    _serving(request).rates.spend(client_of(request))


async def _let_ask(request: Request) -> None:
    """Let a query in. Raises HTTPException where the token is wrong, and Busy where the client asks too fast."""
    await require_token(request)
    await _spend_query(request)


async def _spend_picture(request: Request) -> None:
    _serving(request).rates.spend(client_of(request), PICTURE_COST)


ASKS = [Depends(_spend_query)]
LOOKS = [Depends(_spend_picture)]
SEARCH: dict[str, Any] = {"response_model": SearchAnswer, "responses": BODY_PROBLEMS}
SENTENCE: dict[str, Any] = {"response_model": SentenceAnswer, "responses": BODY_PROBLEMS}
PictureId = Annotated[int, PathParameter(alias="number")]
SimilarWanted = Annotated[int, Query(ge=1, le=MAX_SIMILAR)]
PageSize = Annotated[int, Query(ge=1, le=MAX_RESULTS)]
ListOffset = Annotated[int, Query(ge=0, le=MAX_LIST_OFFSET)]
Sort = Annotated[
    str | None,
    Query(
        max_length=MAX_TEXT_LENGTH, description="A column, or a fact: @name, @size, @width, @height, @date."
    ),
]
ColumnName = Annotated[str, Query(max_length=MAX_TEXT_LENGTH, description="A metadata column.")]
SoughtValue = Annotated[str, Query(max_length=MAX_TEXT_LENGTH, description="What values hold, in any case.")]
Where = Annotated[str | None, Query(max_length=MAX_FILTER_LENGTH, description="Condition on the metadata.")]


class DirectRoute(APIRoute):
    """A route whose function takes the request and makes the response itself, checks of the client included.

    FastAPI's own way to it, dependencies and a check of the answer, costs as much as the rest of HTTP (measured:
    benchmarks/server/stages.py).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function itself."""
        return cast("Callable[[Request], Coroutine[Any, Any, Response]]", self.endpoint)


queries = APIRouter(prefix="/v1", route_class=DirectRoute, responses=PROBLEMS, tags=["search"])
open_routes = APIRouter()
guarded_routes = APIRouter(dependencies=[Depends(require_token)])
routes = APIRouter(prefix="/v1", dependencies=[Depends(require_token)], responses=PROBLEMS)


@open_routes.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    files: PageFiles = request.app.state.files
    return files.page.response(request)


@open_routes.get("/static/{name:path}", include_in_schema=False)
async def static_file(name: str, request: Request) -> Response:
    """A script, style or drawing of the page."""
    files: PageFiles = request.app.state.files
    found = files.file(name)
    if found is None:
        raise NotThere("this server has no such file")
    file, caching = found
    return file.response(request, caching)


@open_routes.get("/health", tags=["server"])
async def health(request: Request) -> Health:
    """Whether the server answers at all."""
    return Health(status="ok", pictures=len(_serving(request).service))


@open_routes.get("/ready", tags=["server"], responses={503: {"model": Problem}})
async def ready(request: Request) -> Health:
    """Whether queries can be answered: the model is loaded and the gallery can be read."""
    serving = _serving(request)
    await serving.pictures.run(serving.service.check)
    return Health(status="ready", pictures=len(serving.service))


@guarded_routes.get(
    "/metrics",
    tags=["server"],
    response_class=Response,
    responses=TEXT | {401: PROBLEMS[401], 429: PROBLEMS[429]},
)
async def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    return Response(_serving(request).metrics.text(), media_type=CONTENT_TYPE)


@queries.post("/search", openapi_extra=describe_form(SearchFields), **SEARCH)
@queries.post(
    "/search/json", name="search_json", openapi_extra=describe_json(SearchFields, SEARCHES), **SEARCH
)
async def search(request: Request) -> Response:
    """Rank the gallery by a picture, words, or both; or by a ready vector.

    The reference is one of `picture`, `item` and `sentence`; `also_item` and `also_sentence` are others beside it.
    With words, the references themselves are left out.
    """
    await _let_ask(request)
    serving = _serving(request)
    with serving.admission.place() as place:
        fields, picture = await read_form(request, SearchFields, serving.limits, place)
        answer = await unless_gone(request, serving.search(fields, picture, _shows_paths(request)))
    return Response(answer.model_dump_json(), media_type=JSON)


@queries.post("/sentence", openapi_extra=describe_form(ReferenceFields), **SENTENCE)
@queries.post(
    "/sentence/json",
    name="sentence_json",
    openapi_extra=describe_json(ReferenceFields, SENTENCES),
    **SENTENCE,
)
async def sentence(request: Request) -> Response:
    """Where each pseudo-word of a picture's sentence looks, and which real words are nearest to it.

    The reference is one of `picture`, `item` and `sentence`.
    """
    await _let_ask(request)
    serving = _serving(request)
    with serving.admission.place() as place:
        fields, picture = await read_form(request, ReferenceFields, serving.limits, place)
        answer = await unless_gone(request, serving.sentence(fields, picture))
    return Response(answer.model_dump_json(), media_type=JSON)


@routes.get("/gallery", tags=["gallery"], dependencies=LOOKS)
async def gallery(request: Request) -> About:
    """How many pictures there are, what is known of them, and what can be asked."""
    about = await _serving(request).about(_shows_paths(request), is_local(request))
    return about.model_copy(update={"fetches_from": fetches_from(request)})


@routes.get("/items", tags=["gallery"], dependencies=LOOKS)
async def items(
    request: Request,
    k: PageSize = 24,
    offset: ListOffset = 0,
    where: Where = None,
    sort: Sort = None,
    descending: bool = False,
) -> Items:
    """A page of the gallery, in its own order or in that of a column."""
    page = Page(k, offset, where or None, sort or None, descending)
    if page.where is not None or page.sort is not None:  # which may cost as much as a query
        _serving(request).rates.spend(client_of(request), 1.0 - PICTURE_COST)
    return await _serving(request).items(page, _shows_paths(request))


@routes.get("/values", tags=["gallery"], dependencies=LOOKS)
async def values(request: Request, column: ColumnName, text: SoughtValue = "", k: PageSize = 40) -> Values:
    """Values of a metadata column that hold a text, the most frequent first."""
    return await _serving(request).values(column, text, k)


@routes.get("/items/{number}", tags=["gallery"], dependencies=LOOKS)
async def item(picture_id: PictureId, request: Request) -> Item:
    """One picture's file and size, and what is known of it."""
    return await _serving(request).item(picture_id, _shows_paths(request))


@routes.get("/items/{number}/similar", tags=["search"], dependencies=ASKS)
async def similar(picture_id: PictureId, request: Request, k: SimilarWanted = 12) -> Similar:
    """Pictures that are like one of the gallery, its near-duplicates first."""
    serving = _serving(request)
    with serving.admission.place():
        return await serving.similar(picture_id, k, _shows_paths(request))


@routes.get(
    "/items/{number}/original", tags=["gallery"], response_class=Response, responses=FILE, dependencies=LOOKS
)
async def original(picture_id: PictureId, request: Request) -> Response:
    """One picture's file as it is, with all that cameras write into it; where the server's owner allows it."""
    if not _shows_paths(request):
        raise AnyHTTPException(403, "this server gives out no original files; its owner may: --show-paths")
    name, content = await _serving(request).original(picture_id)
    kind = mimetypes.guess_type(name)[0] or ""
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    }
    return Response(content, media_type=kind if kind.startswith("image/") else BINARY, headers=headers)


@routes.get(
    "/items/{number}/thumbnail", tags=["gallery"], response_class=Response, responses=JPEG, dependencies=LOOKS
)
async def thumbnail(picture_id: PictureId, request: Request) -> Response:
    """One picture as a small JPEG."""
    return await _jpeg(request, picture_id, THUMBNAIL_SIDE)


@routes.get(
    "/items/{number}/image", tags=["gallery"], response_class=Response, responses=JPEG, dependencies=LOOKS
)
async def image(picture_id: PictureId, request: Request) -> Response:
    """One picture as a JPEG large enough to look at."""
    return await _jpeg(request, picture_id, IMAGE_SIDE)


@routes.get(
    "/model/{name:path}", tags=["device"], response_class=Response, responses=FILE, dependencies=LOOKS
)
async def model_file(name: str, request: Request) -> Response:
    """A file of the model's query side, for browsers that encode queries themselves."""
    serving = _serving(request)
    if serving.runtime is None:
        raise NotThere("this server does not hand out its model")
    content = await serving.pictures.run(serving.service.device_file, name)
    kind = JSON if name.endswith(".json") else BINARY
    return await serving.pictures.run(_kept, request, content, kind, "private, no-cache")


@open_routes.get("/runtime/{name}", include_in_schema=False)
async def runtime_file(name: str, request: Request) -> Response:
    """The ONNX runtime that browsers load."""
    serving = _serving(request)
    if serving.runtime is None or name not in RUNTIME_FILES:
        raise NotThere("this server has no such file")
    read: dict[str, StaticFile] = request.app.state.runtime_files
    if name not in read:
        read[name] = await serving.pictures.run(_read_compressed, serving.runtime / name)
    return read[name].response(request)


def _read_compressed(path: Path) -> StaticFile:
    file = StaticFile(path.name, path.read_bytes())
    _ = file.compressed  # takes a second for the runtime: not on the event loop
    return file


async def _jpeg(request: Request, picture_id: int, side: int) -> Response:
    content = await _serving(request).jpeg(picture_id, side)
    return _kept(request, content, "image/jpeg", "private, max-age=600")


def _kept(request: Request, content: bytes, kind: str, caching: str) -> Response:
    """What a client may keep: 304 without content where it has this version."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": caching, "ETag": tag}
    if has_version(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _on_own_error(request: Request, error: Exception) -> Response:
    """Errors of a request say what is wrong with it; those of model or gallery hold paths, and go to the log."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            later = {"Retry-After": str(error.seconds)} if isinstance(error, Busy) else None
            return _problem(status, str(error), later)
    _log.error("request %s: %s", request.state.request_id, error)
    what = "gallery" if isinstance(error, GalleryError) else "model"
    return _problem(503, f"the {what} cannot be used now; the server's log says why")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    headers = dict(error.headers or {})
    also = {"Allow": "GET, HEAD"} if headers.get("Allow") == "GET" else {}  # see `HeadRequests`
    return _problem(error.status_code, error.detail, headers | also)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _problem(422, first_problem(error.errors()))


async def _on_any_error(request: Request, error: Exception) -> Response:
    """Starlette logs the error itself; the asker learns only that there was one."""
    return _problem(500, "the server made a mistake; its log says which")
