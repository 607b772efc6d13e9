"""Passwords: which are accepted, and their argon2 hashes. Imported where an account is handled."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

MIN_CHARS, MAX_CHARS = 8, 128
_MIN_KINDS_OF_CHARACTERS = 4
# RFC 9106, section 4, its second choice needs 64 MiB for each; OWASP's 19 MiB and two passes bound
# what many that sign in at once take.
_hasher = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))


@cache
def common_passwords() -> frozenset[str]:
    """Return the bundled list of passwords that are tried first."""
    lines = Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").split()
    return frozenset(lines)


def checked_password(password: str, *, email: str = "") -> str:
    """Return the password.

    Raises:
        ValueError: it is too short, too long or easily guessed; the message names the fix.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise ValueError(f"use {MIN_CHARS} to {MAX_CHARS} characters")
    plain = _plain(password)
    if (
        plain in common_passwords()
        or plain.rstrip("0123456789!.@#$*?_-") in common_passwords()
        or len(set(plain)) < _MIN_KINDS_OF_CHARACTERS
        or plain in (email.casefold(), email.casefold().partition("@")[0])
    ):
        raise ValueError("that password is easily guessed; use several words, or another one")
    return password


def hash_password(password: str) -> str:
    """Return the hash; it takes tens of milliseconds of a processor."""
    return _hasher.hash(_normal(password))


def is_password(password: str, known_hash: str | None) -> bool:
    """Say whether it is the password; without a hash it takes as long, and is not."""
    right = _hasher.verify(_normal(password), known_hash or _hash_of_nobody())
    return right and known_hash is not None


@cache
def _hash_of_nobody() -> str:
    return hash_password("nobody has this one")


def _normal(password: str) -> str:
    # Keyboards differ in how they compose letters (NIST SP 800-63B, 5.1.1.2).
    return unicodedata.normalize("NFKC", password)


def _plain(password: str) -> str:
    return _normal(password).casefold().strip()
