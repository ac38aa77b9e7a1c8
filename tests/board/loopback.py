"""A server on loopback that speaks TLS and then whatever a test wants: half answers, junk, dripping bytes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgewire.decoding import encode

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


@dataclass
class Authority:
    """A CA that lives as long as a test."""

    folder: Path
    name: str = "ca"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        start, end = datetime.now(timezone.utc) - timedelta(days=100), datetime.now(timezone.utc) + timedelta(days=100)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = (
            self._builder(subject, subject, self.key, start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, SHA256())
        )
        self.bundle = self.folder / f"{self.name}.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, host: str = "127.0.0.1", *, start_days: float = -1, end_days: float = 1) -> Path:
        """A file with key and certificate for a host, valid between two days from today."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        start, end = now + timedelta(days=start_days), now + timedelta(days=end_days)
        try:
            name: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        certificate = (
            self._builder(subject, self.certificate.subject, key, start, end)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .sign(self.key, SHA256())
        )
        path = self.folder / f"{host}{start_days}{end_days}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        return path

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        start: datetime,
        end: datetime,
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes
    raw_bytes: int


Answer = Callable[[Request], "bytes | Iterator[bytes]"]


class Server:
    """Answers each request on a connection with what `answer` returns; raw bytes, piece by piece; None closes."""

    def __init__(self, certificate: Path, answer: Answer) -> None:
        self.answer, self.requests = answer, list[Request]()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), self._context.wrap_socket(connection, server_side=True) as secure:
            self._open.append(secure)
            with secure.makefile("rb") as reading:
                while True:
                    self.requests.append(_read_request(reading))
                    answer = self.answer(self.requests[-1])
                    for piece in [answer] if isinstance(answer, bytes) else answer:
                        secure.sendall(piece)


def _read_request(reading) -> Request:  # type: ignore[no-untyped-def]
    line = reading.readline()
    if not line:
        raise EOFError
    headers, size = {}, len(line)
    while (row := reading.readline()) not in (b"\r\n", b""):
        size += len(row)
        name, _, value = row.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = reading.read(int(headers.get("content-length", 0)))
    return Request(line.decode().strip(), headers, body, size + 2 + len(body))


def reply(body: bytes = b"", *, status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    """A whole HTTP answer; length: what it claims to have."""
    fields = {"Content-Length": str(len(body) if length is None else length), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def refusal(status: str, code: str, **headers: str) -> bytes:
    body = encode({"error": {"code": code, "message": f"because of {code}"}})
    return reply(body, status=status, **headers)


def close_after(data: bytes) -> Iterator[bytes]:
    """Send this, then break the connection."""
    yield data
    raise EOFError


def drip(data: bytes, *, every_s: float) -> Iterator[bytes]:
    """One byte at a time, each soon enough to satisfy a read timeout."""
    for i in range(len(data)):
        yield data[i : i + 1]
        time.sleep(every_s)
