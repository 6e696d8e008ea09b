"""Routes for those on this computer: folders to index, the indexing run, and a picture's file in its own programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from image2sentence.errors import QueryError
from image2sentence.gallery.records import Picture
from image2sentence.images import EXTENSIONS, ending_of
from image2sentence.server.local import programs
from image2sentence.server.local.folders import MAX_PATH, Listing, list_folder, usual_folders
from image2sentence.server.local.index_job import IndexJob, Progress
from image2sentence.server.schemas import Answering, AnswerModel, Problem
from image2sentence.server.security import is_on_this_computer, require_token
from image2sentence.server.service import SearchService
from image2sentence.server.thread_pool import Workers

WAITING = 8
P = ParamSpec("P")
T = TypeVar("T")

FolderPath = Annotated[str, Field(min_length=1, max_length=MAX_PATH)]


class Local:
    """What the page may do on this computer.

    Args:
        service: The model and the gallery.
        gallery: The gallery's folder, whether or not it is there yet.
        model: The server's model; None for the default one.
        device: What large graphs run on.
    """

    def __init__(
        self, service: SearchService, gallery: Path, model: Path | None = None, device: str = "auto"
    ) -> None:
        self.service = service
        self.job = IndexJob(gallery, model, device)
        self._workers = Workers(1, WAITING)  # a folder that does not answer keeps nobody else waiting

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A function's result, from a thread. Raises Busy."""
        return await self._workers.run(function, *args, **kwargs)

    def close(self) -> None:
        """Interrupt the indexing run and drop what waits."""
        self._workers.drop()
        self.job.close()


class Here(AnswerModel):
    """This computer: the model, the folders that the gallery holds, folders to begin at, and the indexing run."""

    model: Answering | None
    indexed: list[str]
    usual: list[tuple[str, str]]
    progress: Progress


class Wanted(BaseModel):
    """A folder to index, and a file of metadata for its pictures."""

    model_config = ConfigDict(extra="forbid")

    folder: FolderPath
    table: FolderPath | None = None


def is_local(request: Request) -> bool:
    """Whether this client may use these routes: it is on this computer, and the server's owner has not said no."""
    return request.app.state.local is not None and is_on_this_computer(request)


async def require_local(request: Request) -> None:
    """Raise HTTPException 403 unless the client may use these routes."""
    if not is_local(request):
        raise HTTPException(403, "only those on this computer may do this, where its server allows it")


local_routes = APIRouter(
    prefix="/v1/local",
    tags=["local"],
    dependencies=[Depends(require_token), Depends(require_local)],
    responses={status: {"model": Problem} for status in (401, 403, 404, 422, 429)},
)
PictureId = Annotated[int, PathParameter(alias="number")]


def _local(request: Request) -> Local:
    local: Local = request.app.state.local
    return local


@local_routes.get("")
async def here(request: Request) -> Here:
    """The model, the folders, and how far indexing is."""
    local = _local(request)
    about = local.service.about_model
    indexed, usual = await local.run(_folders, local)
    model = None if about is None else Answering(name=about.name, knows=about.knows)
    return Here(model=model, indexed=indexed, usual=usual, progress=_progress(local))


@local_routes.get("/progress")
async def progress(request: Request) -> Progress:
    """How far indexing is."""
    return _progress(_local(request))


@local_routes.get("/folders")
async def folders(request: Request, path: Annotated[str, Query(max_length=MAX_PATH)] = "~") -> Listing:
    """What is in a folder of this computer."""
    return await _local(request).run(list_folder, path or "~")


@local_routes.post("/index", status_code=202)
async def index(request: Request, wanted: Wanted) -> Progress:
    """Begin to index a folder; one at a time."""
    local = _local(request)
    await local.run(local.job.start, wanted.folder, wanted.table)
    return _progress(local)


@local_routes.post("/stop")
async def stop(request: Request) -> Progress:
    """Interrupt indexing: what it has finished stays."""
    local = _local(request)
    local.job.stop()
    return _progress(local)


@local_routes.post("/items/{number}/open", status_code=204)
async def open_item(picture_id: PictureId, request: Request) -> None:
    """Open a picture's file with the program of its kind."""
    local = _local(request)
    await local.run(_run_for, local.service, picture_id, programs.open_commands)


@local_routes.post("/items/{number}/show", status_code=204)
async def show_item(picture_id: PictureId, request: Request) -> None:
    """Show a picture's file in its folder."""
    local = _local(request)
    await local.run(_run_for, local.service, picture_id, programs.show_commands)


def _progress(local: Local) -> Progress:
    return Progress(**local.job.progress())


def _folders(local: Local) -> tuple[list[str], list[tuple[str, str]]]:
    indexed = [str(one) for one in local.service.roots() if isinstance(one, Path)]
    return [path for path in indexed if path.isprintable()], usual_folders()


def _run_for(service: SearchService, picture_id: int, commands: Callable[[Path], list[list[str]]]) -> None:
    picture: Picture = service.item(picture_id)
    if not isinstance(picture.path, Path) or picture.offset is not None:
        raise QueryError("this picture is no file of its own on this computer")
    if ending_of(str(picture.path)) not in EXTENSIONS:  # a gallery from somebody else names files of any kind
        raise QueryError("this file has no picture's ending: it is not opened from here")
    if not os.path.isfile(picture.path):
        raise QueryError("this picture's file is not there any more")
    programs.run_first(commands(picture.path))
