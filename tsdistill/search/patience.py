"""Storages that are out of reach for a while: calls are repeated with growing pauses, and at last given up."""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tsdistill.errors import ConfigError, TsdistillError, must

PATIENCE_SECONDS = 120.0
"""How long a worker waits for a storage that does not answer: a server is started anew in less."""

VARIABLE = "TSDISTILL_STORAGE_PATIENCE"
"""Environment variable that holds another number of seconds."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)
_thread = threading.local()


def patience_seconds() -> float:
    """How long to wait, as the environment says."""
    text = os.environ.get(VARIABLE)
    if not text:
        return PATIENCE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(must(VARIABLE, "be a number of seconds from 0 on", text, "Leave it unset for 120"))
    return seconds


class Patience:
    """Repeats calls that fail because the storage is out of reach.

    Args:
        is_outage: Says of an error whether the same call may succeed later.
        explained: Makes one clear error of the last one, without a password.
    """

    def __init__(
        self, is_outage: Callable[[BaseException], bool], explained: Callable[[BaseException], TsdistillError]
    ) -> None:
        self.is_outage = is_outage
        self._explained = explained
        self._given_up = False

    def __call__(self, call: Callable[[], Result]) -> Result:
        """What `call` gives; ArtifactError once it has failed for too long."""
        if getattr(_thread, "repeats", False):  # a call inside of one that is repeated as a whole
            return call()
        _thread.repeats = True
        try:
            return self._repeated(call)
        finally:
            _thread.repeats = False

    def _repeated(self, call: Callable[[], Result]) -> Result:
        # Who has waited once does not wait again for every step of coming to an end.
        patience = 0.0 if self._given_up else patience_seconds()
        until = time.monotonic() + patience
        pause = FIRST_PAUSE
        failure: BaseException
        while True:
            try:
                result = call()
            except Exception as error:
                if not self.is_outage(error):
                    raise
                failure = error
            else:
                self._given_up = False
                return result
            if time.monotonic() + pause > until:
                break
            if pause == FIRST_PAUSE * 8:  # a connection that was cut is back by then
                _logger.warning("%s Trying again for up to %.0f s.", self._explained(failure), patience)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._given_up = True
        raise self._explained(failure) from None


def patient(methods: Iterable[str]) -> Callable[[type], type]:
    """A class decorator: these methods are called through the object's `patience`."""

    def decorated(cls: Any) -> Any:
        for name in methods:
            setattr(cls, name, _patiently(getattr(cls, name)))
        return cls

    return decorated


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def repeated(self: Any, *args: Any, **keywords: Any) -> Any:
        patience = self.__dict__.get("patience")  # not there before the storage has been opened
        if patience is None:
            return method(self, *args, **keywords)
        return patience(lambda: method(self, *args, **keywords))

    return repeated
