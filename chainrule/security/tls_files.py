"""Certificates and keys as files: read, and checked before gRPC sees them, because it says nothing of what is wrong."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chainrule.errors import CredentialsError

if TYPE_CHECKING:
    from cryptography import x509

WARN_BEFORE_DAYS = 30


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, as PEM. not_after: when the certificate expires, or the first of its chain."""

    certificate: bytes
    key: bytes = field(repr=False)
    not_after: datetime.datetime


def read_identity(certificate: Path, key: Path, *, now: datetime.datetime) -> Identity:
    """The two files. Raises CredentialsError where one is missing or damaged, they don't fit, or the time is over."""
    chain_pem, key_pem = _read(certificate, "certificate"), _read(key, "key")
    chain = _certificates(chain_pem, certificate)
    if _public_bytes_of_key(key_pem, key) != _public_bytes(chain[0]):
        raise CredentialsError(f"the key {key} doesn't belong to the certificate {certificate}; give the pair")
    not_after = min(each.not_valid_after_utc for each in chain)
    if now >= not_after:
        raise CredentialsError(
            f"the certificate {certificate} has expired, on {day(not_after)}; 'chainrule certificates renew' makes a "
            "new one where its authority is yours"
        )
    not_before = max(each.not_valid_before_utc for each in chain)
    if now < not_before:
        raise CredentialsError(
            f"the certificate {certificate} is valid from {not_before:%Y-%m-%d %H:%M} UTC on; is the clock right?"
        )
    return Identity(chain_pem, key_pem, not_after)


def read_authorities(path: Path) -> bytes:
    """The certificates of authorities, as PEM. Raises CredentialsError where the file holds none."""
    content = _read(path, "authority")
    _certificates(content, path)
    return content


def end_of_certificate(path: Path) -> datetime.datetime:
    """When a certificate expires, or the first of its chain. Raises CredentialsError where the file holds none."""
    return min(each.not_valid_after_utc for each in _certificates(_read(path, "certificate"), path))


def end_of_authority(path: Path) -> datetime.datetime:
    """When the last of the authorities in a file expires. Raises CredentialsError where the file holds none."""
    return max(each.not_valid_after_utc for each in _certificates(_read(path, "authority"), path))


def expiry_warning(what: str, not_after: datetime.datetime, *, now: datetime.datetime, remedy: str) -> str | None:
    """What to say of a certificate that expires within WARN_BEFORE_DAYS; None for one that doesn't."""
    left = not_after - now
    if left > datetime.timedelta(days=WARN_BEFORE_DAYS):
        return None
    if left <= datetime.timedelta(0):
        return f"{what} has expired, on {day(not_after)}: nobody can connect; {remedy}"
    days = f"{left.days} day{'' if left.days == 1 else 's'}"
    return f"{what} expires on {day(not_after)}, in {days}; {remedy}"


def day(time: datetime.datetime) -> str:
    """'2026-11-27'."""
    return f"{time:%Y-%m-%d}"


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"the {what} file {path} can't be read: {error.strerror}") from None


def _certificates(content: bytes, path: Path) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise CredentialsError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None


def _public_bytes_of_key(content: bytes, path: Path) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise CredentialsError(f"the key {path} is locked by a password; give one that isn't") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CredentialsError(f"{path} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)") from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _public_bytes(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(serialization.Encoding.DER, form)
