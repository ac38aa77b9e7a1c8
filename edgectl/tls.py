"""TLS as a board needs it: only the pinned authorities, a deadline that also holds while a server drips bytes, and
failures told apart: a stranger's certificate, another host's, or a clock that is wrong."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509

from edgewire.errors import CorruptFile, EdgeError, NotEnrolled, Offline, UntrustedServer, WrongClock
from edgewire.signing import CLOCK_TOLERANCE_S

_EXPIRED, _NOT_YET_VALID = 10, 9  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, _NOT_YET_VALID
_HOST_MISMATCH, _ADDRESS_MISMATCH = 62, 64


def pinned_context(ca_bundle: Path, allowed_s: Callable[[], float]) -> ssl.SSLContext:
    """A context that trusts the bundle and nothing else (not the system's authorities).

    allowed_s: asked before each read and write, how long it may block; at or below 0 the deadline has passed.
    Raises NotEnrolled if there is no bundle, CorruptFile if it holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except FileNotFoundError:
        raise NotEnrolled(f"there is no {ca_bundle}", hint="enroll this board: edgectl enroll FILE") from None
    except ssl.SSLError as error:
        raise CorruptFile(
            f"{ca_bundle} holds no certificate: {error.reason}", hint="enroll again with --force"
        ) from None
    context.sslsocket_class = _bounded_socket(allowed_s)
    return context


def _bounded_socket(allowed_s: Callable[[], float]) -> type[ssl.SSLSocket]:
    """A socket class that renews its timeout before each call: a socket's own timeout starts anew with every byte."""

    class BoundedSocket(ssl.SSLSocket):
        def _bound(self) -> None:
            left = allowed_s()
            if left <= 0:
                raise TimeoutError("the deadline has passed")
            self.settimeout(left)

        def recv_into(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            self._bound()
            return super().recv_into(*args, **kwargs)

        def send(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            self._bound()
            return super().send(*args, **kwargs)

    return BoundedSocket


def explain(error: BaseException, *, url: str, ca_bundle: Path, now: float) -> EdgeError | None:
    """What a TLS failure means, or None if it was none. Looks through the wrappers of the HTTP libraries."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _explain_certificate(cause, url=url, ca_bundle=ca_bundle, now=now)
        if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return Offline(f"{url} closed the connection", hint="try again later")
        if isinstance(cause, ssl.SSLError):
            return UntrustedServer(
                f"no secure connection to {url}: {cause.reason or cause}", hint="check host and port"
            )
    return None


def _explain_certificate(cause: ssl.SSLCertVerificationError, *, url: str, ca_bundle: Path, now: float) -> EdgeError:
    code = getattr(cause, "verify_code", 0)
    if code in (_EXPIRED, _NOT_YET_VALID):
        when = "has expired" if code == _EXPIRED else "is not valid yet"
        return WrongClock(
            f"the certificate of {url} {when} by this machine's clock, {utc(now)}; {_lifetime(ca_bundle)}",
            hint="set this machine's clock; if it is right, the cloud's certificate must be renewed",
        )
    if code in (_HOST_MISMATCH, _ADDRESS_MISMATCH) or "match" in str(cause):
        return UntrustedServer(
            f"the server at {url} has a certificate for another name: {getattr(cause, 'verify_message', cause)}",
            hint="use the name the cloud was set up with",
        )
    return UntrustedServer(
        f"the certificate of {url} is not signed by the authority this board enrolled with",
        hint="somebody may be in between, or the cloud was set up anew: then enroll again",
    )


def _lifetime(ca_bundle: Path) -> str:
    """A second opinion on the time, from what was pinned at enrolment."""
    authorities = x509.load_pem_x509_certificates(ca_bundle.read_bytes())
    begin = min(authority.not_valid_before_utc.timestamp() for authority in authorities)
    end = max(authority.not_valid_after_utc.timestamp() for authority in authorities)
    return f"its authority is valid from {utc(begin)} to {utc(end)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def check_clock(server_time: str | None, *, now: float) -> None:
    """Compare the server's clock, as it says in its answer, with ours. Raises WrongClock beyond the tolerance."""
    try:
        theirs = float(server_time or "nan")
    except ValueError:
        return
    if abs(theirs - now) > CLOCK_TOLERANCE_S:  # false for NaN
        raise WrongClock(
            f"this machine's clock says {utc(now)}, the cloud's says {utc(theirs)}",
            hint="set this machine's clock (timedatectl set-ntp true)",
        )


def utc(seconds: float) -> str:
    """Seconds since 1970 as people write it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"
