"""Passes: what stands in for the token for one purpose and for some time.

They are signed with the token and not kept, so a server that takes over from this one knows them too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time


class Passes:
    """Issues passes and checks them. `purpose` is what a pass is good for, and for nothing else."""

    def __init__(self, token: str) -> None:
        self._key = token.encode()
        self._taken: dict[str, int] = {}  # those that count once and were used, with when they expire

    def issue(self, purpose: str, seconds: int) -> str:
        """A pass for so long. It may stand in a header, an address, or a script's storage."""
        head = f"{int(time.time()) + seconds:x}.{secrets.token_hex(8)}"
        return f"{head}.{self._sign(head, purpose)}"

    def holds(self, shown: str, purpose: str) -> bool:
        """Whether this is a pass for that, and has not expired."""
        head, _, seal = shown.rpartition(".")
        return _same(seal, self._sign(head, purpose)) and _expiry(head) > time.time()

    def take(self, shown: str, purpose: str) -> bool:
        """Whether it holds; then it was used, and does not hold for `take` any more."""
        now = time.time()
        self._taken = {used: expiry for used, expiry in self._taken.items() if expiry > now}
        if shown in self._taken or not self.holds(shown, purpose):
            return False
        self._taken[shown] = _expiry(shown)
        return True

    def _sign(self, head: str, purpose: str) -> str:
        text = f"org pass\n{head}\n{purpose}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def _expiry(signed: str) -> int:
    """When what we have signed expires."""
    return int(signed.partition(".")[0], 16)


def _same(shown: str, secret: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), secret.encode())
