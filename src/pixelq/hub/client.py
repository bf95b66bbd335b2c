"""Requests to the hub through its own library: download one file, upload a few."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pixelq.cache import cache_folder
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.hub.address import HubAddress, parse_address
from pixelq.hub.checks import LARGEST, check_agent_file

__all__ = ["AGENT_FILE", "fetch_agent", "push_files", "sign_in"]

AGENT_FILE = "agent.safetensors"  # in an agent's repository
_SECONDS = 15.0  # the longest wait for the first answer
_LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


def fetch_agent(text: Path | str) -> Path:
    """The file of an agent on the hub, from pixelq's cache if it is there already.

    A process asks once for each address, so that it uses one revision only. Without a network it uses
    the cache.

    Args:
        text: `hf:USER/NAME[@REVISION]`.

    Returns:
        A `.safetensors` file with a checked header.

    Raises:
        PixelqError: there is no such agent, the hub cannot be reached, or the file is wrong.
    """
    return _fetch(parse_address(text), str(cache_folder() / "hub"))


@cache
def _fetch(address: HubAddress, folder: str) -> Path:
    need("hub", "huggingface_hub")
    import huggingface_hub as hub

    endpoint = _endpoint()
    where: dict[str, Any] = {"repo_id": address.repository, "filename": AGENT_FILE, "revision": address.revision}
    with _quietly(), _errors_told(str(address), "read"):
        url = hub.hf_hub_url(**where, endpoint=endpoint)
        try:
            size = hub.get_hf_file_metadata(url, timeout=_SECONDS, endpoint=endpoint).size
        except _unreachable():
            known = hub.try_to_load_from_cache(**where, cache_dir=folder)
            if not isinstance(known, str):
                raise
            path = Path(known)
        else:
            if size is None or size > LARGEST:
                says = "does not say its size" if size is None else f"has {size:,} bytes"
                raise PixelqError(f"{address}: {AGENT_FILE} {says}: an agent has at most {LARGEST:,}")
            path = Path(hub.hf_hub_download(**where, cache_dir=folder, endpoint=endpoint, etag_timeout=_SECONDS))
    check_agent_file(path, str(address))
    return path


def sign_in() -> None:
    """Make sure that the user is logged in to the hub.

    Raises:
        PixelqError: there is no token, the hub does not take it, or it cannot be reached.
    """
    need("hub", "huggingface_hub")
    import huggingface_hub as hub

    if hub.get_token() is None:
        raise PixelqError(f"the hub needs a token to write: {_LOGIN}")
    with _quietly(), _errors_told("the hub", "write"):
        hub.HfApi(endpoint=_endpoint()).whoami()


def push_files(repository: str, files: Mapping[str, Path], message: str, *, private: bool = False) -> str:
    """Send files to a model on the hub, all in one revision; create the model if needed.

    Args:
        repository: `USER/NAME`.
        files: the files, by their names on the hub.
        message: of the revision.
        private: only the owner sees a new model; an existing model does not change.

    Returns:
        The address of its page.

    Raises:
        PixelqError: the hub cannot be reached, or refuses.
    """
    need("hub", "huggingface_hub")
    import huggingface_hub as hub

    api = hub.HfApi(endpoint=_endpoint())
    with _quietly(), _errors_told(repository, "write"):
        page = api.create_repo(repository, private=private, exist_ok=True)
        adds = [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
        api.create_commit(repository, adds, commit_message=message)
    return str(page)


def _endpoint() -> str | None:
    """The hub's URL; None: the library's own default."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _unreachable() -> tuple[type[BaseException], ...]:
    """The library's errors without a network."""
    from huggingface_hub import errors

    return (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, _transport_error(), ConnectionError)


def _transport_error() -> Any:
    """The connection error of the HTTP library that the hub's library uses."""
    from huggingface_hub.errors import HfHubHTTPError

    http = sys.modules[HfHubHTTPError.__bases__[0].__module__.split(".")[0]]
    return http.TransportError


@contextmanager
def _errors_told(name: str, what: str) -> Iterator[None]:
    """One line for any error of the hub or the network."""
    from huggingface_hub import errors

    try:
        yield
    except _unreachable() as error:
        raise PixelqError(f"{name}: the hub cannot be reached: {_line(error)}") from error
    except errors.GatedRepoError as error:
        raise PixelqError(f"{name} is gated: ask for access on its page on the hub, then {_LOGIN}") from error
    except errors.RepositoryNotFoundError as error:
        raise PixelqError(f"{name}: the hub has no such model, or it is private: then {_LOGIN}") from error
    except errors.RevisionNotFoundError as error:
        raise PixelqError(f"{name}: the model has no such revision") from error
    except errors.EntryNotFoundError as error:
        raise PixelqError(f"{name} has no {AGENT_FILE}: it is no agent of pixelq") from error
    except errors.HfHubHTTPError as error:
        raise PixelqError(_refusal(name, what, error)) from error
    except OSError as error:  # the cache, or a download that broke off
        raise PixelqError(f"{name}: {_line(error)}") from error
    except (ValueError, RuntimeError) as error:
        raise PixelqError(f"{name}: the hub's library says: {_line(error.__cause__ or error)}") from error


def _refusal(name: str, what: str, error: Any) -> str:
    status = error.response.status_code
    if status == 401:
        return f"{name}: the hub does not take your token: {_LOGIN}"
    if status == 403:
        return f"{name}: the hub does not let you {what} there: your token needs the right to {what}"
    return f"{name}: the hub answers {status}: {_line(error.server_message or error)}"


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the library's messages; show its bars only on a terminal."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars and not sys.stderr.isatty():
            enable_progress_bars()
