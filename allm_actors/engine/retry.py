"""When a failed attempt is made again, and how long after.

`Retry` is the policy, a value. The loop that follows it lives where attempts are made; what the
policy says about one failure is here, readable and testable without a loop.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator
from tenacity import Retrying
from tenacity.retry import retry_if_exception
from tenacity.stop import stop_after_attempt
from tenacity.wait import wait_base, wait_exponential

from allm_actors.data.base import Float, Model
from allm_actors.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

_LOWEST_STATUS, _HIGHEST_STATUS = 100, 599


class Retry(Model):
    """How often a call that failed before it delivered anything is made again.

    Times are seconds. `Retry(max_attempts=1)` is one attempt and no other.
    """

    max_attempts: int = Field(default=3, ge=1)
    """Attempts in all, the first included."""
    base_delay: Float = Field(default=0.5, ge=0)
    """The wait after the first failure; it doubles with each further one."""
    max_delay: Float = Field(default=30.0, ge=0)
    """The longest computed wait, jitter not counted."""
    jitter: Float = Field(default=0.25, ge=0, allow_inf_nan=False)
    """Up to this much is added to every wait."""
    retry_on: list[int | str] = Field(
        default=["rate_limited", "provider_unavailable", "timeout", "network_error"]
    )
    """HTTP statuses and reasons of `AdapterError`."""
    respect_retry_after: bool = True
    """Wait as long as the provider asks for, rather than as computed."""
    max_retry_after: Float = Field(default=120.0, ge=0)
    """A provider that asks for more than this is not asked again."""

    @field_validator("retry_on")
    @classmethod
    def _known(cls, causes: list[int | str]) -> list[int | str]:
        reasons = AdapterError.legal_reasons()
        for cause in causes:
            if isinstance(cause, str):
                if cause not in reasons:
                    raise ValueError(f"{cause!r} is no reason of AdapterError: {', '.join(sorted(reasons))}")
            elif not _LOWEST_STATUS <= cause <= _HIGHEST_STATUS:
                raise ValueError(f"{cause!r} is no HTTP status")
        return causes

    def repeats(self, error: BaseException) -> bool:
        """True when this failure, with attempts left, is followed by another attempt."""
        if not isinstance(error, AdapterError) or error.metadata.get("no_retry"):
            return False
        if error.reason not in self.retry_on and (error.status is None or error.status not in self.retry_on):
            return False
        return not self._asks_for(error) > self.max_retry_after

    def delay(self, attempt: int, error: BaseException, rng: Callable[[], float] = random.random) -> float:
        """Give the seconds to wait after failed attempt number `attempt`, the first being 1.

        Args:
            attempt: Number of the attempt that failed.
            error: What it failed with.
            rng: Gives a number in 0..1; the share of `jitter` that is added.
        """
        base = self._asks_for(error)
        if base <= 0:
            base = _backoff(self, attempt)
        return base + self.jitter * rng()

    def retrying(self, rng: Callable[[], float] = random.random, **hooks: Any) -> Retrying:
        """Give the tenacity loop that follows this policy; `hooks` are tenacity's (`sleep`, ...).

        The loop raises the last error itself, not a wrapper.
        """
        return Retrying(
            stop=stop_after_attempt(self.max_attempts),
            retry=retry_if_exception(self.repeats),
            wait=_Wait(self, rng),
            reraise=True,
            **hooks,
        )

    def _asks_for(self, error: BaseException) -> float:
        asked = getattr(error, "retry_after", None)
        return asked if self.respect_retry_after and asked is not None else 0.0


class _Wait(wait_base):
    """`Retry.delay` as tenacity asks for it."""

    def __init__(self, policy: Retry, rng: Callable[[], float]) -> None:
        self._policy = policy
        self._rng = rng

    def __call__(self, retry_state: RetryCallState) -> float:
        outcome = retry_state.outcome
        error = outcome.exception() if outcome is not None else None
        return self._policy.delay(retry_state.attempt_number, error or Exception(), self._rng)


def _backoff(policy: Retry, attempt: int) -> float:
    """`base_delay` doubled with every failure and capped; tenacity minds the overflow."""
    exponential = wait_exponential(multiplier=policy.base_delay, max=policy.max_delay, exp_base=2)
    state: Any = _Attempt(attempt)
    return exponential(state)


class _Attempt:
    """All that tenacity's arithmetic reads of a call."""

    def __init__(self, number: int) -> None:
        self.attempt_number = number
