"""A private authority and the certificates that it gives to servers, workers and clients, in one folder.

    ca.pem, ca.key              the authority; the key never leaves the folder
    server.pem, server.key      the server's, for the host names that it is reached by
    worker.pem, worker.key      what a worker shows; likewise client, observer and admin

A role's certificate names it in its OU, which is how a server with --client-ca knows what the caller may do.
The clock comes in; `cryptography` draws the keys.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chainrule.atomic_file import replace_with
from chainrule.errors import CredentialsError

AUTHORITY = "ca"
SERVER = "server"
# Whoever wants to be known by a certificate; the names are the roles of chainrule.security.tokens.
CALLERS = ("worker", "client", "observer", "admin")
AUTHORITY_DAYS = 3650
DEFAULT_DAYS = 365
MIN_DAYS, MAX_DAYS = 1, 825
ALWAYS_HOSTS = ("localhost", "127.0.0.1", "::1")
# For machines whose clock is behind.
CLOCK_SKEW = datetime.timedelta(minutes=5)
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Shown:
    """What `show` tells of one certificate of a folder."""

    name: str
    path: Path
    not_after: datetime.datetime
    hosts: tuple[str, ...]


def create(folder: Path, *, hosts: Sequence[str], days: int, now: datetime.datetime) -> list[Shown]:
    """Make the authority, where the folder has none, and every certificate that is missing; what the folder holds then.

    No key that is there is replaced. hosts: names and addresses of the server, besides this machine's own loopback.
    days: how long a certificate lives; the authority lives for ten years. Raises CredentialsError."""
    if not MIN_DAYS <= days <= MAX_DAYS:
        raise CredentialsError(f"--days must be from {MIN_DAYS} to {MAX_DAYS}, got {days}")
    names = _alternative_names(hosts)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CredentialsError(f"the folder {folder} can't be made: {error.strerror}") from None
    if _exists(folder, AUTHORITY):
        authority = _load(folder, AUTHORITY)
    else:
        if found := [name for name in (SERVER, *CALLERS) if _exists(folder, name)]:
            raise CredentialsError(f"{folder} holds {found[0]}.pem but no ca.pem and ca.key; name another folder")
        authority = _authority(now)
        _store(folder, AUTHORITY, authority)
    if _exists(folder, SERVER):
        _check_hosts(folder, names)
    else:
        _store(folder, SERVER, _issued(authority, SERVER, names, now=now, days=days))
    for name in CALLERS:
        if not _exists(folder, name):
            _store(folder, name, _issued(authority, name, [], now=now, days=days))
    return show(folder)


def renew(folder: Path, *, hosts: Sequence[str], days: int, now: datetime.datetime) -> list[Shown]:
    """Give every certificate of the folder but the authority's a new key and a new time; what the folder holds then.

    hosts: in place of those of the server's certificate; none: those stay. A server notices by itself."""
    if not MIN_DAYS <= days <= MAX_DAYS:
        raise CredentialsError(f"--days must be from {MIN_DAYS} to {MAX_DAYS}, got {days}")
    authority = _load(folder, AUTHORITY)
    if now >= authority.certificate.not_valid_after_utc:
        raise CredentialsError(f"the authority of {folder} has expired; make a new one in another folder")
    for name in (SERVER, *CALLERS):
        if _exists(folder, name):
            old = _load(folder, name).certificate
            names = _names_of(old) if name != SERVER or not hosts else _alternative_names(hosts)
            _store(folder, name, _issued(authority, name, names, now=now, days=days))
    return show(folder)


def show(folder: Path) -> list[Shown]:
    """The certificates of a folder. Raises CredentialsError where there is none."""
    found = []
    for name in (AUTHORITY, SERVER, *CALLERS):
        path = folder / f"{name}.pem"
        if path.exists():
            certificate = _load_certificate(path)
            hosts = tuple(str(each.value) for each in _names_of(certificate))
            found.append(Shown(name, path, certificate.not_valid_after_utc, hosts))
    if not found:
        raise CredentialsError(f"{folder} holds no certificates; 'chainrule certificates create' makes them")
    return found


def _authority(now: datetime.datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: two authorities with one name would be taken for each other.
    name = _subject("chainrule authority", secrets.token_hex(4))
    usage = _key_usage(signs_others=True)
    builder = (
        _builder(name, key, now, AUTHORITY_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def _issued(
    authority: Pair, name: str, names: Sequence[x509.GeneralName], *, now: datetime.datetime, days: int
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_subject(f"chainrule {name}", name), key, now, days, authority.certificate.not_valid_after_utc)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(identifier, critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    days: int,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    not_after = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        # A certificate that outlives its authority would be refused all the same.
        .not_valid_after(not_after if latest is None else min(not_after, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        ]
    )


def _key_usage(*, digital_signature: bool = False, signs_others: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """DNS names and IP addresses, each once, those of the loopback too. Raises CredentialsError."""
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys((*hosts, *ALWAYS_HOSTS)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            if len(host) > 253 or not _HOST.fullmatch(host):
                raise CredentialsError(
                    f"--host: {host[:80]!r} is neither a host name nor an IP address; give it without a port"
                ) from None
            names.append(x509.DNSName(host.lower()))
    return names


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _check_hosts(folder: Path, wanted: Sequence[x509.GeneralName]) -> None:
    """Raise CredentialsError where the server's certificate isn't made for all of these."""
    there = _names_of(_load_certificate(folder / f"{SERVER}.pem"))
    if missing := [str(name.value) for name in wanted if name not in there]:
        raise CredentialsError(
            f"{folder / SERVER}.pem is there already and isn't made for {', '.join(missing)}; "
            "'chainrule certificates renew' with every --host replaces it"
        )


def _exists(folder: Path, name: str) -> bool:
    return (folder / f"{name}.pem").exists() or (folder / f"{name}.key").exists()


def _load(folder: Path, name: str) -> Pair:
    path = folder / f"{name}.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise CredentialsError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise CredentialsError(f"{path} holds no private key that can be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CredentialsError(f"{path} is no key that 'chainrule certificates' has made")
    return Pair(_load_certificate(folder / f"{name}.pem"), key)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CredentialsError(f"{path} can't be read: {error.strerror}") from None
    except ValueError:
        raise CredentialsError(f"{path} holds no certificate in PEM") from None


def _store(folder: Path, name: str, pair: Pair) -> None:
    """Write both files, each whole or not at all, the key first and readable by its owner alone."""
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _replace(folder / f"{name}.key", key, mode=0o600)
    _replace(folder / f"{name}.pem", pair.certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    try:
        replace_with(path, [content], mode=mode)
    except OSError as error:
        raise CredentialsError(f"{path} can't be written: {error.strerror}; choose another folder") from None
