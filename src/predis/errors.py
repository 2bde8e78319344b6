"""Every error a user can meet, in one tree.

    PredisError
    ├── InvalidInput            what was sent cannot be used
    │   ├── InvalidRequest      an inference request breaks the protocol or the model's signature
    │   ├── InvalidSetting      a setting has a value of the wrong type or outside its range
    │   └── TooLarge            a body, batch or tensor is over its limit
    ├── NotFound                a name that does not exist
    │   ├── ModelNotFound
    │   ├── VersionNotFound
    │   ├── EndpointNotFound
    │   ├── AliasNotFound
    │   ├── RolloutNotFound
    │   ├── AlertNotFound
    │   ├── RetrainingNotFound
    │   └── SourceNotFound
    ├── Conflict                the state does not allow it now
    │   ├── AlreadyExists
    │   ├── RolloutInProgress   an endpoint has at most one rollout at a time
    │   └── IllegalTransition   the thing is not in a state from which that move exists
    │   └── ChangeFrozen         nothing may go forward now: a freeze window is open
    ├── AccessDenied            the caller may not do this
    │   └── Unauthenticated     the caller did not prove who they are
    ├── Unavailable             it may work later
    │   ├── NotReady            the model is known but not loaded yet
    │   ├── Overloaded          too much is asked at once
    │   │   └── TenantOverloaded  one tenant asks too much at once
    │   ├── DeadlineExceeded    the caller's deadline passed before there was an answer
    │   └── Unreachable         no answer from a Predis server
    ├── IntegrityFailure        bytes are not the bytes that were registered
    │   └── Untrusted           an artifact that could run code is not signed by this registry, or names what it must not
    ├── ModelFailure            a model could not be loaded, or failed on a valid input
    └── SetupError              Predis cannot start here
        ├── PortInUse
        ├── HomeNotWritable
        ├── HomeInUse
        ├── UnsafeBind          listening beyond loopback without API keys
        ├── DiskFull
        └── MissingExtra        an optional package is needed

An error knows nothing of HTTP or gRPC: ``serving.rest`` and ``serving.grpc`` translate by class. ``code`` is stable and
meant for programs; the message is one line for people: what is wrong, where, and how to mend it.
"""

from __future__ import annotations

from typing import ClassVar


class PredisError(Exception):
    """Root of the tree. ``code`` is stable across releases; ``str(error)`` is one line."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def __str__(self) -> str:
        return self.message  # whatever else stands in args

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidInput(PredisError, ValueError):
    code = "invalid_input"


class InvalidRequest(InvalidInput):
    code = "invalid_request"


class InvalidSetting(InvalidInput):
    code = "invalid_setting"


class TooLarge(InvalidInput):
    code = "too_large"


class NotFound(PredisError, LookupError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class EndpointNotFound(NotFound):
    code = "endpoint_not_found"


class AliasNotFound(NotFound):
    code = "alias_not_found"


class RolloutNotFound(NotFound):
    code = "rollout_not_found"


class AlertNotFound(NotFound):
    code = "alert_not_found"


class RetrainingNotFound(NotFound):
    code = "retraining_not_found"


class SourceNotFound(NotFound):
    code = "source_not_found"


class Conflict(PredisError):
    code = "conflict"


class AlreadyExists(Conflict):
    code = "already_exists"


class RolloutInProgress(Conflict):
    code = "rollout_in_progress"


class IllegalTransition(Conflict):
    code = "illegal_transition"


class ChangeFrozen(Conflict):
    code = "change_frozen"


class AccessDenied(PredisError):
    code = "access_denied"


class Unauthenticated(AccessDenied):
    code = "unauthenticated"


class Unavailable(PredisError):
    code = "unavailable"


class NotReady(Unavailable):
    code = "not_ready"


class Overloaded(Unavailable):
    code = "overloaded"


class TenantOverloaded(Overloaded):
    code = "tenant_overloaded"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class Unreachable(Unavailable):
    code = "unreachable"


class IntegrityFailure(PredisError):
    code = "integrity_failure"


class Untrusted(IntegrityFailure):
    code = "untrusted"


class ModelFailure(PredisError):
    code = "model_failure"


class SetupError(PredisError):
    code = "setup_error"


class PortInUse(SetupError):
    code = "port_in_use"


class HomeNotWritable(SetupError):
    code = "home_not_writable"


class HomeInUse(SetupError):
    code = "home_in_use"


class UnsafeBind(SetupError):
    code = "unsafe_bind"


class DiskFull(SetupError):
    code = "disk_full"


class MissingExtra(SetupError):
    code = "missing_extra"

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtra:
        return cls(f"this needs the package {package!r}; install it with: pip install 'predis[{extra}]'")


def all_errors() -> dict[str, type[PredisError]]:
    """Every error class by its code, so that a client can raise what the server meant."""
    found: dict[str, type[PredisError]] = {PredisError.code: PredisError}
    waiting = list(PredisError.__subclasses__())
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found
