"""The keys that sign access tokens: of the settings, or made once and kept in the data folder.

The first key signs, all of them verify: a new one is put in front, and the old one goes when the
tokens that it signed have run out. What a token says is not known here.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

FILE_NAME = "jwt-keys.json"
# RFC 7518, section 3.2: a key of HS256 is at least as long as the hash.
MIN_KEY_BYTES = 32
_MIN_KINDS_OF_CHARACTERS = 10
_KEPT = 3
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def checked_keys(values: Sequence[str]) -> tuple[str, ...]:
    """Return `kid:secret` values that can sign.

    Raises:
        ValueError: one has no kid, is too short, or is made of a few characters only.
    """
    kids = set()
    for value in values:
        kid, _, secret = value.partition(":")
        if not secret or not _KID.fullmatch(kid) or kid in kids:
            raise ValueError("write KID:SECRET, several with commas, each with a KID of its own")
        kids.add(kid)
        if len(secret.encode()) < MIN_KEY_BYTES or len(set(secret)) < _MIN_KINDS_OF_CHARACTERS:
            raise ValueError(
                f"a secret is too weak: at least {MIN_KEY_BYTES} random characters, as in "
                "`openssl rand -base64 48`"
            )
    return tuple(values)


class SigningKeys:
    """The keys by their kid; those of a file are read again when the file changes."""

    def __init__(self, given: Sequence[str], folder: Path) -> None:
        self._file = None if given else folder / FILE_NAME
        self._read_at_ns = -1
        self._keys = dict(key.split(":", 1) for key in given)

    def all(self) -> dict[str, str]:
        """Return secrets by their kid; the first one signs."""
        if self._file is not None:
            try:
                changed_ns = self._file.stat().st_mtime_ns
            except FileNotFoundError:
                _add_key(self._file, first=True)
                changed_ns = self._file.stat().st_mtime_ns
            if changed_ns != self._read_at_ns:
                self._keys = _read(self._file)
                self._read_at_ns = changed_ns
        return self._keys

    def signing(self) -> tuple[str, str]:
        """Return the kid and the secret that sign."""
        return next(iter(self.all().items()))


def rotate(folder: Path) -> str:
    """Put a new key in front of those of the folder; return its kid."""
    return _add_key(folder / FILE_NAME, first=False)


def _read(file: Path) -> dict[str, str]:
    # Whoever copied the file may have opened it to others.
    if file.stat().st_mode & 0o077:
        file.chmod(0o600)
    keys = {key["kid"]: key["secret"] for key in json.loads(file.read_text())["keys"]}
    checked_keys([f"{kid}:{secret}" for kid, secret in keys.items()])
    if not keys:
        raise ValueError(f"{FILE_NAME} holds no key; delete it to have one made")
    return keys


def _add_key(file: Path, *, first: bool) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    kid, secret = secrets.token_hex(4), secrets.token_urlsafe(48)
    known = _read(file) if file.exists() else {}
    keys = [{"kid": kid, "secret": secret}]
    keys += [{"kid": kid, "secret": secret} for kid, secret in list(known.items())[: _KEPT - 1]]
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{FILE_NAME}-")
    try:
        # mkstemp makes the file for its owner only.
        with os.fdopen(handle, "w") as written:
            json.dump({"keys": keys}, written)
        if first:
            try:
                os.link(name, file)
            except FileExistsError:
                # Another process was first; its key is everybody's.
                return next(iter(_read(file)))
        else:
            Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
    return kid
