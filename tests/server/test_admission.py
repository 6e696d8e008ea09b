"""Admission of requests: places, memory and rates, and clients that leave."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi import Request

from image2sentence.server.admission import Admission, Busy, Gone, Rates, client_of, unless_gone


def test_bodies_share_a_bounded_memory() -> None:
    admission = Admission(places=2, body_bytes=100)
    with admission.place() as first, admission.place() as second:
        first.hold(60)
        first.hold(50)
        assert admission.held == 60
        with pytest.raises(Busy, match="pictures are being sent"):
            second.hold(41)
        second.hold(40)
        with pytest.raises(Busy, match="waiting"), admission.place():
            pass
    assert (admission.inside, admission.held) == (0, 0)


def test_a_body_that_grows_holds_what_it_has_become() -> None:
    admission = Admission(places=1, body_bytes=100)
    with admission.place() as place:
        for size in (60, 80, 100):
            place.hold(size)
            assert admission.held == place.held == size
        with pytest.raises(Busy):
            place.hold(101)
    assert admission.held == 0


def test_there_are_as_many_places_as_were_asked_for() -> None:
    admission = Admission(places=300, body_bytes=1)
    with ExitStack() as inside:
        for _ in range(300):
            inside.enter_context(admission.place())
        with pytest.raises(Busy, match="waiting"):
            inside.enter_context(admission.place())
    assert admission.inside == 0


def test_whoever_is_refused_waits_whole_seconds_and_at_least_one() -> None:
    assert [Busy("full").seconds, Busy("full", 0.0).seconds, Busy("full", 2.1).seconds] == [1, 1, 3]


@pytest.mark.parametrize(("rate", "at_once"), [(0.3, 1), (1.0, 2), (3.0, 6)])
def test_two_seconds_of_requests_may_come_at_once_and_never_less_than_one(rate: float, at_once: int) -> None:
    rates = Rates(rate, lambda: 0.0)
    for _ in range(at_once):
        rates.spend("a")
    with pytest.raises(Busy):
        rates.spend("a")


def test_the_wait_is_until_the_bucket_holds_what_was_asked_for() -> None:
    rates = Rates(0.3, lambda: 0.0)
    rates.spend("a", 0.5)
    with pytest.raises(Busy) as refused:
        rates.spend("a", 3.0)
    assert refused.value.seconds == 9  # 2.5 are missing, 0.3 come in a second


def test_what_is_given_back_can_be_spent_again() -> None:
    rates = Rates(0.5, lambda: 0.0)
    rates.spend("a")
    rates.spend("a", -1.0)
    rates.spend("a")


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_without_a_rate_nobody_is_counted(rate: float) -> None:
    Rates(rate, lambda: 0.0).spend("a", 10**9)


def test_each_client_has_a_rate_of_its_own() -> None:
    now = [0.0]
    rates = Rates(2.0, lambda: now[0])
    for _ in range(4):
        rates.spend("a")
    with pytest.raises(Busy) as refused:
        rates.spend("a", 2.0)
    assert refused.value.seconds == 1
    rates.spend("b")
    now[0] = 0.5
    rates.spend("a")
    with pytest.raises(Busy):
        rates.spend("a")


def test_an_ipv6_network_is_one_client() -> None:
    def asking(host: str) -> str:
        return client_of(Request({"type": "http", "client": (host, 1), "headers": []}))

    assert asking("2001:db8::1") == asking("2001:db8::8000:0:0:1") != asking("2001:db8:0:1::1")
    assert asking("10.0.0.1") != asking("10.0.0.2")
    assert asking("::ffff:10.0.0.1") == asking("10.0.0.1") != asking("::ffff:10.0.0.2")
    assert asking("testclient") == "testclient"


def test_a_client_that_leaves_is_not_answered() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("done")

    async def leaves() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def ask() -> None:
        with pytest.raises(Gone):
            await unless_gone(Request({"type": "http", "headers": []}, leaves), work())
        await asyncio.sleep(0)
        assert ended == ["cancelled"]  # by itself, not when the loop ends

    asyncio.run(ask())
