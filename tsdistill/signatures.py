"""Signatures of artifacts: who made this, where digests only say that it is whole.

An Ed25519 signature (RFC 8032) over the exact bytes of the manifest, which lists the digest of every other file. It
lies beside the manifest, so that signing changes nothing that was there. Keys are PEM files, as openssl writes them:

    openssl genpkey -algorithm ed25519 -out private.pem
    openssl pkey -in private.pem -pubout -out public.pem

Needs the extra `sign` (cryptography); nothing here is loaded where no signature is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from tsdistill import manifest as manifests
from tsdistill.errors import ConfigError, UnsupportedError, check_type
from tsdistill.formats import read_regular
from tsdistill.manifest import SIGNATURE

CONTEXT = b"tsdistill manifest signature 1\0"
"""Stands before what is signed, so that no signature made for another purpose with the same key counts here."""

PASSWORD = "TSDISTILL_KEY_PASSWORD"
"""Environment variable with the password of an encrypted private key."""

MAX_BYTES = 16 * 2**10
"""Largest file with a key that is read."""

_FORM = re.compile(rb"ed25519 ([0-9a-f]{32}) ([A-Za-z0-9+/]{86}==)\n?")


def signature_of(folder: str | Path, private_key: str | Path | bytes) -> str:
    """The signature of an artifact, which is checked first; `tsdistill.artifacts.sign` puts it in its place."""
    key = _private(private_key)
    signed: list[bytes] = []
    manifests.read(folder, optional=(manifests.GOLDEN,), check=lambda content, _: signed.append(content))
    signature = base64.b64encode(key.sign(CONTEXT + signed[-1])).decode()
    return f"ed25519 {_fingerprint(key.public_key())} {signature}\n"


def check_private_key(private_key: str | Path | bytes) -> None:
    """ConfigError when there is no such key, UnsupportedError when cryptography is not installed."""
    _private(private_key)


def verify_signature(folder: str | Path, public_key: str | Path | bytes) -> str:
    """Check that an artifact is whole and that the owner of a key has signed it.

    Use it before an artifact from elsewhere is served. To check and load in one step, so that nothing can be exchanged
    in between, give `public_key` to `tsdistill.runtime.load` or `tsdistill.load`.

    Args:
        folder: The artifact.
        public_key: Path of an Ed25519 key in PEM, or the PEM itself as bytes.

    Returns:
        Fingerprint of the key: the first 32 digits of the SHA-256 of its 32 bytes.

    Raises:
        ArtifactError: there is no signature, it is another key's, or the manifest is not the one that was signed; or
            the artifact is damaged.
        ConfigError: there is no such key, or it is none of this kind.
        UnsupportedError: cryptography is not installed.
    """
    manifests.read(folder, optional=(manifests.GOLDEN,), check=checker(public_key))
    return _fingerprint(_public(public_key))


def checker(public_key: str | Path | bytes | None) -> manifests.Check | None:
    """What `manifest.read` asks about the bytes of a manifest; None when no signature is demanded."""
    if public_key is None:
        return None
    key = _public(public_key)
    demanded = _fingerprint(key)

    def check(manifest: bytes, signature: bytes | None) -> None:
        from cryptography.exceptions import InvalidSignature

        if signature is None:
            raise ValueError(f"it has no signature ({SIGNATURE}), and one of the key {demanded} is demanded")
        match = _FORM.fullmatch(signature)
        if match is None:
            raise ValueError(f"{SIGNATURE} is no signature of tsdistill")
        if match[1].decode() != demanded:
            raise ValueError(f"it was signed with the key {match[1].decode()}, not with {demanded}, which is demanded")
        try:
            key.verify(base64.b64decode(match[2]), CONTEXT + manifest)
        except InvalidSignature:
            raise ValueError(f"the signature of the key {demanded} does not belong to this manifest") from None

    return check


def pem(public_key: str | Path | bytes) -> str:
    """A public key as the text that a PEM file holds, once it is known to be one."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _public(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _private(source: str | Path | bytes) -> Any:
    content = _content("private_key", source)
    serialization, ed25519 = _cryptography()
    password = os.environ.get(PASSWORD)
    key: Any = None
    reason = "no Ed25519 key in PEM"
    try:
        key = serialization.load_pem_private_key(content, password.encode() if password else None)
    except TypeError:  # what cryptography says to a password too many or too few
        reason = f"a key that needs {'no' if password else 'a'} password ({PASSWORD})"
    except Exception:  # ValueError and UnsupportedAlgorithm; their words may hold parts of the file
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(
            f"`private_key` must be an Ed25519 private key, got {reason}. Make one with: openssl genpkey -algorithm "
            "ed25519 -out private.pem."
        )
    return key


def _public(source: str | Path | bytes) -> Any:
    content = _content("public_key", source)
    serialization, ed25519 = _cryptography()
    key: Any = None
    if b"PRIVATE" not in content:
        try:
            key = serialization.load_pem_public_key(content)
        except Exception:  # ValueError and UnsupportedAlgorithm
            key = None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError(
            "`public_key` must be an Ed25519 public key in PEM, got something else. Make it with: openssl pkey -in "
            "private.pem -pubout -out public.pem."
        )
    return key


def _content(name: str, source: str | Path | bytes) -> bytes:
    check_type(name, source, (str, Path, bytes), "Pass the path of a PEM file, or its content as bytes")
    if isinstance(source, bytes):
        return source
    path = Path(source)
    try:
        return read_regular(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"`{name}` must be the path of a PEM file, but {path}: {reason}. Check the path.") from None


def _fingerprint(key: Any) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UnsupportedError(
            "Signatures need cryptography. Install it with: pip install 'tsdistill[sign]' (or cryptography itself)."
        ) from None
    return serialization, ed25519
