"""`image2sentence serve`: a page and an HTTP interface to search a gallery."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from image2sentence.cli.addresses import (
    address,
    can_show_qr_code,
    fetched_host,
    network_host,
    path_prefix,
    qr_code,
    web_origin,
)
from image2sentence.cli.options import (
    GALLERY_NAME,
    device_option,
    find_gallery,
    gallery_option,
    model_option,
    optional_extra,
    require_gallery,
)

if TYPE_CHECKING:
    from image2sentence.encoders import Encoder
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.server.thumbnails import Thumbnails

TOKEN_VARIABLE = "IMAGE2SENTENCE_TOKEN"
PROXIES_VARIABLE = "FORWARDED_ALLOW_IPS"
HOSTS_VARIABLE = "IMAGE2SENTENCE_ALLOW_HOST"
SERVER_PACKAGES = frozenset(
    {
        "fastapi",
        "httptools",
        "multipart",
        "prometheus_client",
        "pydantic",
        "python_multipart",
        "segno",
        "starlette",
        "uvicorn",
    }
)
ANSWERING_SECONDS = 8
"""After a signal, for what has begun; the process ends two seconds later whatever still runs."""
RATE = 20.0
WAITING = 32
THUMBNAILS = 1_024
BATCH = 32
SWITCH_SECONDS = 0.0005
LARGE_BLOCK = 1 << 20

NOT_BEHIND_A_PROXY = (
    "Browsers on this computer see paths and may index folders; a proxy on it can pass for one of them: "
    "behind a proxy, give --allow-host NAME or --hide-paths."
)

_M_MMAP_THRESHOLD = -3
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@click.command()
@gallery_option
@model_option
@device_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The port.")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    envvar=HOSTS_VARIABLE,
    metavar="NAME",
    help="Another name by which browsers may call this server, such as a proxy's; can be repeated. "
    f"Default: ${HOSTS_VARIABLE}, names apart by spaces.",
)
@click.option(
    "--root-path",
    metavar="PATH",
    callback=lambda _, __, value: path_prefix(value or ""),
    help="Path below which a proxy passes requests on, such as /pictures, whether or not it takes the path off.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    callback=lambda _, __, value: frozenset(web_origin(one) for one in value),
    help="An origin whose pages may ask, such as https://shop.example.org; can be repeated. '*' for any needs --token.",
)
@click.option(
    "--show-paths/--hide-paths",
    default=None,
    help="Whether visitors see where pictures lie, and may have the original files. Default: those on this computer "
    "only, where neither a proxy nor another device is provided for.",
)
@click.option(
    "--fetch-from",
    "fetched",
    multiple=True,
    metavar="HOST",
    callback=lambda _, __, value: frozenset(fetched_host(one) for one in value),
    help="A host, such as images.example.org, whose pictures visitors may ask with by their https address; can be "
    "repeated. Default: nothing is fetched.",
)
@click.option(
    "--read-only",
    is_flag=True,
    help="Let nobody index folders or open files from the page. Else those on this computer may, where neither a proxy "
    "nor another device is provided for.",
)
@click.option(
    "--access-log",
    type=click.Choice(["text", "json"]),
    help="Write a line for each request to standard error. Default: none.",
)
@click.option(
    "--forwarded-allow-ips",
    "proxies",
    envvar=PROXIES_VARIABLE,
    metavar="NETWORKS",
    callback=lambda _, __, value: networks(value),
    help="Proxies whose X-Forwarded-For is believed, as addresses or networks apart by commas. "
    f"Default: ${PROXIES_VARIABLE}, else 127.0.0.1.",
)
@click.option(
    "--token",
    envvar=TOKEN_VARIABLE,
    metavar="TOKEN",
    help=f"Answer only those who bring this token. Default: ${TOKEN_VARIABLE}.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    metavar="N",
    help=f"Queries a second from one client; 0 for any. Default: {RATE:g}, and any on this computer alone.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=0),
    default=WAITING,
    show_default=True,
    metavar="N",
    help="Queries that may wait; one more is answered 429.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=BATCH,
    show_default=True,
    metavar="N",
    help="Most waiting queries that the model answers in one call.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads of one call of the model; 0 for one per core. More answer a lone query of a large model sooner.",
)
@click.option(
    "--max-upload",
    type=click.FloatRange(min=0.1, max=1024),
    metavar="MIB",
    help="Largest request with a picture. Default: 25.",
)
@click.option(
    "--max-upload-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest picture that is decoded for a visitor. Default: 64,000,000; 400 MB of memory bound it, too.",
)
@click.option(
    "--thumbnails",
    type=click.IntRange(min=0),
    default=THUMBNAILS,
    show_default=True,
    metavar="MIB",
    help="Most that small pictures take on disk, in the user's cache folder; 0 keeps none, and wipes those there.",
)
@click.option(
    "--browser-runtime",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="onnxruntime-web's dist folder: lets the page encode queries on the visitor's device.",
)
def serve(
    gallery: Path | str | None,
    model: Path | None,
    device: str,
    host: str,
    port: int,
    allowed: tuple[str, ...],
    root_path: str,
    origins: frozenset[str],
    show_paths: bool | None,
    fetched: frozenset[str],
    read_only: bool,
    access_log: Literal["text", "json"] | None,
    proxies: list[IPv4Network | IPv6Network] | None,
    token: str | None,
    rate: float | None,
    waiting: int,
    batch: int,
    threads: int,
    max_upload: float | None,
    max_upload_pixels: int | None,
    thumbnails: int,
    browser_runtime: Path | None,
) -> None:
    """Open a page where a gallery is searched with pictures and words, until Ctrl-C.

    Without --host, only this computer can reach it.
    """
    if token == "":
        raise click.BadParameter("it is empty: leave it out to let everyone ask", param_hint="--token")
    if "*" in origins and not token:
        raise click.BadParameter(
            "'*' lets any web page read the pictures: give --token, too", param_hint="--allow-origin"
        )
    _share_cores()
    _return_memory()
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for each damaged form otherwise
    with server_extra():
        import uvicorn

        from image2sentence.server.app import RUNTIME_FILES, Deployment, create_app
        from image2sentence.server.connections import EndingServer, bounded_protocol
        from image2sentence.server.forms import UploadLimits
        from image2sentence.server.local.routes import Local
        from image2sentence.server.requests import Load
        from image2sentence.server.security import LOOPBACK, AllowedHosts
        from image2sentence.server.service import UPLOADS, SearchService
    from image2sentence.encoders import load_encoder
    from image2sentence.indexing.model_choice import space_of

    own_only = host in LOOPBACK
    alone = own_only and not (allowed or root_path or origins)
    is_local = alone and not read_only and show_paths is not False
    name = (find_gallery(gallery) or Path.cwd() / GALLERY_NAME) if is_local else require_gallery(gallery)
    with ExitStack() as opening:
        sockets = opening.enter_context(taken(host, port))
        encoder = load_encoder(model, threads, device=device, space=space_of(name))
        opened = opening.enter_context(_opened(name, encoder))
        uploads = UPLOADS if max_upload_pixels is None else replace(UPLOADS, max_pixels=max_upload_pixels)
        encoder_of = None if model else partial(load_encoder, None, threads, None, device)
        kept = opening.enter_context(_thumbnails(thumbnails))
        service = SearchService(encoder, opened, uploads, encoder_of, kept)
        service.prepare()
        _require_runtime(browser_runtime, RUNTIME_FILES)
        if show_paths is None and not alone:
            show_paths = False
        per_second = rate if rate is not None else 0.0 if own_only else RATE
        app = create_app(
            service,
            token=token,
            hosts=AllowedHosts.of(host, allowed),
            limits=None if max_upload is None else UploadLimits(int(max_upload * (1 << 20))),
            load=Load(waiting=waiting, batch=batch, rate=per_second),
            runtime=browser_runtime,
            deployment=Deployment(root_path, origins, access_log, show_paths, fetched),
            local=Local(service, name, model, device) if is_local and isinstance(name, Path) else None,
        )
        if not own_only and not token:
            click.echo(
                f"Anyone who can reach {host} can see the pictures; --token keeps others out.", err=True
            )
        with _bind_errors(host, port):
            for one in sockets:
                one.listen()
        _say_where(len(service), host, port, root_path)
        if alone and show_paths is None:
            click.echo(NOT_BEHIND_A_PROXY)
        if not len(service) and is_local:
            click.echo("No pictures yet: the page leads through indexing a folder.")
        if access_log is not None:
            _write_access_log()
        config = uvicorn.Config(
            app,
            http=bounded_protocol(proxies or ()),
            ws="none",
            log_level="warning",
            server_header=False,
            forwarded_allow_ips=[str(one) for one in proxies or ()] or "127.0.0.1",
            timeout_graceful_shutdown=ANSWERING_SECONDS,
        )
        with suppress(KeyboardInterrupt):  # the server has ended by then
            EndingServer(config).run(sockets)


@contextmanager
def _thumbnails(mib: int) -> Iterator[Thumbnails | None]:
    """Where thumbnails are kept. Raises ClickException where those there cannot be wiped."""
    from image2sentence.server.thumbnails import MIB, Thumbnails, cache_folder, wipe

    if not mib:
        try:
            wipe(cache_folder())
        except OSError as error:
            raise click.ClickException(f"thumbnails cannot be wiped: {error}") from error
        yield None
        return
    with closing(Thumbnails(cache_folder(), mib * MIB)) as kept:
        yield kept


def _opened(name: Path | str, encoder: Encoder) -> AbstractContextManager[GalleryStore]:
    """The gallery; an empty one that stands for the default one where that is not there yet."""
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.server.local.awaited import awaited_gallery

    if name == Path.cwd() / GALLERY_NAME and not name.exists():
        return awaited_gallery(name, encoder)
    return open_gallery(name)


def _say_where(pictures: int, host: str, port: int, prefix: str) -> None:
    """Print the address to open; where the server listens at every address, also one for other devices."""
    outside = network_host(host)
    own = host if outside is None else "localhost"
    click.echo(f"{pictures:,} pictures at {address(own, port)}{prefix and prefix + '/'} (Ctrl-C stops)")
    if outside is not None:
        there = f"{address(outside, port)}{prefix}/"
        click.echo(f"On other devices of this network: {there}")
        if can_show_qr_code():
            click.echo(qr_code(there))


def _write_access_log() -> None:
    from image2sentence.server.middleware import ACCESS_LOGGER

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(ACCESS_LOGGER)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def networks(listed: str | None) -> list[IPv4Network | IPv6Network] | None:
    """Addresses and networks apart by commas; None for none."""
    try:
        return [ip_network(one.strip()) for one in listed.split(",")] if listed else None
    except ValueError as error:
        raise click.BadParameter(f"expected IP addresses or networks apart by commas; {error}") from error


def _share_cores() -> None:
    """Settings under which HTTP and model do not stand in each other's way (measured: benchmarks/server/load.py).

    Matrix products stay on one thread, since requests keep the other cores busy, and a thread that has computed gets
    Python's lock back within half a millisecond, not five.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is first imported
    sys.setswitchinterval(SWITCH_SECONDS)


def _return_memory() -> None:
    """Give large blocks back to the system as soon as they are free.

    Otherwise glibc keeps what the largest picture took: its bound goes up with the blocks that it sees (mallopt(3);
    measured: benchmarks/server/abuse.py).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not in musl
            libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def _require_runtime(folder: Path | None, files: Iterable[str]) -> None:
    missing = [name for name in files if folder is not None and not (folder / name).is_file()]
    if missing:
        raise click.BadParameter(
            f"{folder} has no {missing[0]}: give node_modules/onnxruntime-web/dist after "
            "`npm install onnxruntime-web`",
            param_hint="--browser-runtime",
        )


@contextmanager
def taken(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets bound to every address of a host; until they listen, nobody is kept waiting for the model to load.

    Raises ClickException where the host or its port cannot be taken.
    """
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        with _bind_errors(host, port):
            known = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            places = dict.fromkeys((family, place) for family, _, _, _, place in known)
            for left, (family, place) in reversed(list(enumerate(places))):
                try:
                    sockets.append(opened.enter_context(_bound(family, place)))
                except OSError as error:
                    # "localhost" may be an IPv6 address, too, where there is no IPv6.
                    if error.errno not in _NO_SUCH_ADDRESS or not (left or sockets):
                        raise
        yield sockets


def _bound(family: int, place: Any) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # a port stays taken for a while otherwise; on Windows it would be shared
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(place)
    except OSError:
        one.close()
        raise
    return one


@contextmanager
def _bind_errors(host: str, port: int) -> Iterator[None]:
    """Why an address cannot be listened at, and what to do."""
    try:
        yield
    except UnicodeError as error:
        raise click.BadParameter(f"{host!r} is no host name", param_hint="--host") from error
    except OSError as error:
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise click.ClickException(
            f"cannot listen at {address(host, port)} ({error.strerror}): choose another {other}"
        ) from error


def server_extra() -> AbstractContextManager[None]:
    """Around imports of `image2sentence.server`."""
    return optional_extra("server", SERVER_PACKAGES)
