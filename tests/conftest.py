from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from playwright.async_api import Browser

from engine import SCRIPTS, Engine, serving
from guest import image
from machine_kit import Owner, owning
from org import __version__
from page_kit import chromium

# Wall time is no property of the code: a busy machine makes any example slow.
settings.register_profile("org", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("org")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where scripted models are kept for this run."""
    return tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(models: Path) -> AsyncIterator[Engine]:
    """The shared server on all of `tests/scripts.toml`. Leave it running and thawed."""
    async with serving(models, SCRIPTS) as running:
        yield running


@pytest.fixture
def scripted(models: Path) -> Callable[..., AbstractAsyncContextManager[Engine]]:
    """A server of one's own: `async with scripted({"name": ["step", ...]}, raw=True) as engine`.

    It may be frozen and killed. The options are those of `EmbeddedServer`.
    """
    return partial(serving, models)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium; tests that use it run on the session's event loop."""
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Owner]:
    """Somebody with a machine in which this version of org is installed, suspended: for
    `machine_kit.copy_suspended`."""
    await image()
    with owning(tmp_path_factory.mktemp("installed")) as owner:
        done = await asyncio.to_thread(owner.vm, "install")
        assert done.returncode == 0, done.stderr.decode()
        assert f"org {__version__} is in the machine `default` now".encode() in done.stdout
        assert (await asyncio.to_thread(owner.vm, "down")).returncode == 0
        yield owner
