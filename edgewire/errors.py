"""One tree of errors: error code <-> HTTP status <-> exception <-> exit code.

    EdgeError                    failed               500   1
    |- UsageError                usage                400   2
    |  |- InvalidSamples         invalid_samples      422   2
    |  `- InvalidMessage         invalid_message      422   2
    |- NotFound                  not_found            404   1
    |  `- Gone                   gone                 410   1
    |- TooLarge                  too_large            413   1
    |- Conflict                  conflict             409   1
    |- RetryLater                retry_later          503   3
    |  |- Offline                offline              -     3
    |  |- RateLimited            rate_limited         429   3
    |  `- NotReady               not_ready            503   3
    |- TimedOut                  timeout              504   4
    |- NothingToDo               nothing_to_do        -     5
    |- ResourcesRefused          resources            507   6
    |  |- DiskFull               disk_full            507   6
    |  `- ReadOnly               read_only            507   6
    |- UnsupportedBoard          unsupported_board    -     7
    |- IntegrityError            integrity            -     8
    |  |- DigestMismatch         digest_mismatch      422   8
    |  |- Forged                 forged               401   8
    |  |- Expired                expired              401   8
    |  |- Outdated               outdated             409   8
    |  |- UntrustedServer        untrusted_server     -     8
    |  |- WrongClock             wrong_clock          401   8
    |  `- CorruptFile            corrupt_file         -     8
    |- Busy                      busy                 409   9
    |- NotEnrolled               not_enrolled         -    10
    `- Refused                   refused              403  11
       |- Unauthorized           unauthorized         401  11
       |- TokenRefused           token_refused        401  11
       |- Replayed               replayed             401  11
       |- Revoked                revoked              403  11
       |- NotGranted             not_granted          403  11
       `- UpgradeRequired        upgrade_required     426  11

Exit codes are promised to scripts; 130 (cancelled) comes from the shell's convention and 255 is never returned.
"""

from __future__ import annotations

import errno


class EdgeError(Exception):
    """Something failed. `message` says what, `hint` says what to do next (either may be shown to a user)."""

    code = "failed"
    http_status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(EdgeError):
    code, http_status, exit_code = "usage", 400, 2


class InvalidSamples(UsageError):
    code, http_status = "invalid_samples", 422


class InvalidMessage(UsageError):
    code, http_status = "invalid_message", 422


class NotFound(EdgeError):
    code, http_status = "not_found", 404


class Gone(NotFound):
    code, http_status = "gone", 410


class TooLarge(EdgeError):
    code, http_status = "too_large", 413


class Conflict(EdgeError):
    code, http_status = "conflict", 409


class RetryLater(EdgeError):
    code, http_status, exit_code = "retry_later", 503, 3


class Offline(RetryLater):
    code = "offline"


class RateLimited(RetryLater):
    code, http_status = "rate_limited", 429


class NotReady(RetryLater):
    code = "not_ready"


class TimedOut(EdgeError):
    code, http_status, exit_code = "timeout", 504, 4


class NothingToDo(EdgeError):
    code, exit_code = "nothing_to_do", 5


class ResourcesRefused(EdgeError):
    code, http_status, exit_code = "resources", 507, 6


class DiskFull(ResourcesRefused):
    code = "disk_full"


class ReadOnly(ResourcesRefused):
    code = "read_only"


class UnsupportedBoard(EdgeError):
    code, exit_code = "unsupported_board", 7


class IntegrityError(EdgeError):
    code, exit_code = "integrity", 8


class DigestMismatch(IntegrityError):
    code, http_status = "digest_mismatch", 422


class Forged(IntegrityError):
    code, http_status = "forged", 401


class Expired(IntegrityError):
    code, http_status = "expired", 401


class Outdated(IntegrityError):
    code, http_status = "outdated", 409


class UntrustedServer(IntegrityError):
    code = "untrusted_server"


class WrongClock(IntegrityError):
    code, http_status = "wrong_clock", 401


class CorruptFile(IntegrityError):
    code = "corrupt_file"


class Busy(EdgeError):
    code, http_status, exit_code = "busy", 409, 9


class NotEnrolled(EdgeError):
    code, exit_code = "not_enrolled", 10


class Refused(EdgeError):
    code, http_status, exit_code = "refused", 403, 11


class Unauthorized(Refused):
    code, http_status = "unauthorized", 401


class TokenRefused(Refused):
    code, http_status = "token_refused", 401


class Replayed(Refused):
    code, http_status = "replayed", 401


class Revoked(Refused):
    code = "revoked"


class NotGranted(Refused):
    code = "not_granted"


class UpgradeRequired(Refused):
    code, http_status = "upgrade_required", 426


def _tree(root: type[EdgeError]) -> list[type[EdgeError]]:
    return [root, *(below for child in root.__subclasses__() for below in _tree(child))]


BY_CODE: dict[str, type[EdgeError]] = {kind.code: kind for kind in _tree(EdgeError)}


def from_code(code: str, message: str, *, hint: str = "", retry_after_s: float | None = None) -> EdgeError:
    """The exception for an error code read from the wire; an unknown code becomes a plain `EdgeError`."""
    return BY_CODE.get(code, EdgeError)(message, hint=hint, retry_after_s=retry_after_s)


def from_os_error(error: OSError, doing: str) -> EdgeError:
    """Name what the operating system refused: a full disk and a read-only one are not the same advice."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk is full while {doing}{where}", hint="free some space and run the same command again")
    if error.errno == errno.EROFS:
        return ReadOnly(f"the file system is read-only while {doing}{where}", hint="remount it read-write")
    if error.errno in (errno.EACCES, errno.EPERM):
        return EdgeError(f"permission denied while {doing}{where}", hint="run as the user that owns the folder")
    return EdgeError(f"{error.strerror or error} while {doing}{where}")
