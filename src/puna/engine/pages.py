"""The pages of the key-value cache: who holds which, which hold the beginning of a known text, and which may go next.

A full page is known by a hash of its tokens and of all before them, so that a later sequence that begins alike takes
the page instead of computing it. The hash is keyed by a secret of this process and by the tenant: nobody can find out
by timing what another tenant has asked, nor craft two texts of one hash. A page that nobody holds keeps its content
until the room is needed; the longest unused goes first, and of one sequence its end before its beginning.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

_SECRET = secrets.token_bytes(16)


def page_hashes(tokens: Sequence[int], page_tokens: int, salt: str, known: Sequence[bytes] = ()) -> list[bytes]:
    """The hash of every full page of `tokens`.

    Args:
        tokens: of a sequence, from its beginning.
        page_tokens: tokens of a page.
        salt: sequences with different salts share nothing.
        known: hashes of the first pages, from an earlier call.
    """
    hashes = list(known)
    above = hashes[-1] if hashes else salt.encode()
    for start in range(len(hashes) * page_tokens, len(tokens) - page_tokens + 1, page_tokens):
        content = np.asarray(tokens[start : start + page_tokens], dtype=np.int64).tobytes()
        above = blake2b(above + content, digest_size=16, key=_SECRET).digest()
        hashes.append(above)
    return hashes


class PagePool:
    """Pages 0 .. count - 1.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.reset()

    def reset(self) -> None:
        """Nobody holds a page, and none is known."""
        self._holders = [0] * self.count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(self.count))
        self._hash: list[bytes | None] = [None] * self.count
        self._by_hash: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Pages that nobody holds, known ones among them."""
        return len(self._free)

    @property
    def known(self) -> int:
        """Pages that can be found by their content."""
        return len(self._by_hash)

    def match(self, hashes: Iterable[bytes]) -> list[int]:
        """The pages of the longest known beginning."""
        pages = []
        for digest in hashes:
            page = self._by_hash.get(digest)
            if page is None:
                break
            pages.append(page)
        return pages

    def room_beside(self, pages: Sequence[int]) -> int:
        """Free pages, were these held."""
        return self.free - sum(page in self._free for page in pages)

    def hold(self, pages: Iterable[int]) -> None:
        """One holder more for each page."""
        for page in pages:
            self._free.pop(page, None)
            self._holders[page] += 1

    def take(self, count: int) -> list[int] | None:
        """Pages for new content, held once; None where there are too few."""
        if count > len(self._free):
            return None
        pages = [self._free.popitem(last=False)[0] for _ in range(count)]
        for page in pages:
            self._forget(page)
            self._holders[page] = 1
        return pages

    def release(self, pages: Sequence[int]) -> None:
        """One holder less for each page, in the order of their sequence."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free[page] = None
                if self._hash[page] is None:
                    self._free.move_to_end(page, last=False)

    def name(self, page: int, digest: bytes) -> None:
        """Makes a full page known. Where another page has that content already, it stays the known one."""
        if self._hash[page] is None and digest not in self._by_hash:
            self._hash[page] = digest
            self._by_hash[digest] = page

    def forget_all(self) -> None:
        """No page is known any more; who holds what stays."""
        for page in range(self.count):
            self._forget(page)

    def _forget(self, page: int) -> None:
        digest = self._hash[page]
        if digest is not None:
            del self._by_hash[digest]
            self._hash[page] = None
