"""A small certificate authority: ECDSA P-256, for short certificates: every byte of a small sync counts."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewire.errors import CorruptFile, UsageError
from edgewire.files import digest

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
BACKDATE_S = 3600.0  # a board whose clock is a little slow still accepts a new certificate

_HOST = re.compile(
    r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)

PrivateKey = ec.EllipticCurvePrivateKey


def new_key() -> PrivateKey:
    """A P-256 private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """A private key as PEM (PKCS 8), not encrypted: the folder's mode and medium protect it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes, *, name: str) -> PrivateKey:
    """Raises CorruptFile unless it is a P-256 key."""
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError:
        raise CorruptFile(f"{name} does not hold a private key") from None
    if not isinstance(key, PrivateKey):
        raise CorruptFile(f"{name} holds a key of another kind")
    return key


def new_authority(key: PrivateKey, *, name: str, now: float) -> str:
    """A self-signed CA certificate, as PEM."""
    subject = _name(name)
    return _pem(_sign_authority(subject, key, subject, key, now=now))


def cross_certificate(new_pem: str, old_pem: str, old_key: PrivateKey, *, now: float) -> str:
    """The new CA's key certified by the old CA: who only knows the old one can still verify the server."""
    new, old = x509.load_pem_x509_certificate(new_pem.encode()), x509.load_pem_x509_certificate(old_pem.encode())
    return _pem(_sign_authority(new.subject, new.public_key(), old.subject, old_key, now=now))


def server_certificate(
    key: PrivateKey, hosts: Sequence[str], authority: str, authority_key: PrivateKey, *, now: float
) -> str:
    """A certificate for the service, valid for the given host names and addresses, as PEM."""
    issuer = x509.load_pem_x509_certificate(authority.encode())
    builder = _builder(_name(hosts[0][:64]), key.public_key(), issuer.subject, days=SERVER_DAYS, now=now)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
    )
    return _pem(builder.sign(authority_key, hashes.SHA256()))


def check_hosts(hosts: Sequence[str]) -> None:
    """Raises UsageError for a name that no certificate can hold."""
    for host in hosts:
        if not _HOST.fullmatch(host) and not _is_address(host):
            raise UsageError(
                f"'{host}' is not a host name", hint="write it in ASCII: bücher.example is xn--bcher-kva.example"
            )


def fingerprint(pem: str) -> str:
    """Short name of a certificate's key: 16 hex characters, the same for a cross certificate."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise CorruptFile("an authority's certificate has a key of another kind")
    return digest(public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))[:16]


def expires_at(pem: str) -> float:
    """When a certificate ends, in seconds since 1970."""
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()


def issuer_of(pem: str, authorities: Sequence[str]) -> str | None:
    """Which of these authorities vouches for a certificate, None: none of them."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
        except (ValueError, TypeError, InvalidSignature):
            continue
        return authority
    return None


def hosts_of(pem: str) -> list[str]:
    """The names and addresses a server certificate is valid for."""
    extension = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(name.value) for name in extension.value]


def _sign_authority(
    subject: x509.Name,
    key: object,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    *,
    now: float,
) -> x509.Certificate:
    public = key.public_key() if isinstance(key, PrivateKey) else key
    builder = _builder(subject, public, issuer, days=AUTHORITY_DAYS, now=now)
    # one below: the cross certificate of the CA that comes after this one
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True), critical=True)
    if issuer != subject:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _builder(
    subject: x509.Name, public: object, issuer: x509.Name, *, days: int, now: float
) -> x509.CertificateBuilder:
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise CorruptFile("a certificate has a key of another kind")
    start = datetime.datetime.fromtimestamp(now - BACKDATE_S, datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
