"""Every error that Penstock's services raise and its clients catch: one tree, one reason each.

A class names its gRPC code and a stable reason (google.rpc.ErrorInfo, AIP-193). Servers raise; one
outermost place (penstock.service.rpc) sends; the SDK rebuilds the same class on the other side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import grpc

DOMAIN = "penstock.dev"
"""The ErrorInfo domain of every reason below."""


@dataclass(frozen=True)
class FieldViolation:
    """One thing wrong with one field of a request."""

    field: str
    """Path of the field, such as texts[3] or options.dimensions."""
    description: str


class PenstockError(Exception):
    """Any refusal by a Penstock service.

    ``metadata`` goes out as ErrorInfo.metadata; ``retry_after_seconds`` as RetryInfo when set;
    ``violations`` as BadRequest when there are any.
    """

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after_seconds: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.metadata: Mapping[str, str] = metadata
        self.request_id = ""
        """The call's x-request-id; filled in by the client."""


class InternalError(PenstockError):
    """Something broke on the server; the details are in its log under the request id."""

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)


# Who is calling


class Unauthenticated(PenstockError):
    """The caller could not be identified."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "CREDENTIALS_INVALID"

    def __init__(self, message: str = "the credentials are not valid") -> None:
        super().__init__(message)


class CredentialsMissing(Unauthenticated):
    """The call carries no credentials."""

    reason = "CREDENTIALS_MISSING"

    def __init__(
        self, message: str = "no credentials: send 'authorization: Bearer <API key>'"
    ) -> None:
        super().__init__(message)


class PermissionDenied(PenstockError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class ScopeMissing(PermissionDenied):
    """The key lacks the scope that the method needs."""

    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope {scope!r}", scope=scope)


class TierNotAllowed(PermissionDenied):
    """The call asks for a higher service tier than its key may use."""

    reason = "TIER_NOT_ALLOWED"

    def __init__(self, tier: str, highest: str) -> None:
        super().__init__(
            f"tier {tier} is above this key's highest, {highest}", tier=tier, highest=highest
        )


class TenantSuspended(PermissionDenied):
    """The caller's tenant may not call until an operator resumes it."""

    reason = "TENANT_SUSPENDED"


# What was asked


class NotFound(PenstockError):
    """Nothing of that name is visible to the caller."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class ModelNotFound(NotFound):
    """No model of that name is visible to the caller."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str) -> None:
        super().__init__(f"no model {model!r}", model=model)


class VersionNotFound(NotFound):
    """The model has no such version."""

    reason = "VERSION_NOT_FOUND"

    def __init__(self, model: str, version: str) -> None:
        super().__init__(
            f"model {model!r} has no version {version!r}", model=model, version=version
        )


class FileNotFound(NotFound):
    """No file of that id is visible to the caller."""

    reason = "FILE_NOT_FOUND"


class BatchNotFound(NotFound):
    """No batch of that id is visible to the caller."""

    reason = "BATCH_NOT_FOUND"


class FineTuningJobNotFound(NotFound):
    """No fine-tuning job of that id is visible to the caller."""

    reason = "FINE_TUNING_JOB_NOT_FOUND"


class CheckpointNotFound(NotFound):
    """No checkpoint of that id is visible to the caller."""

    reason = "CHECKPOINT_NOT_FOUND"


class JobNotFound(NotFound):
    """The tenant has no such job; between services only."""

    reason = "JOB_NOT_FOUND"


class TenantNotFound(NotFound):
    """There is no such tenant."""

    reason = "TENANT_NOT_FOUND"


class KeyNotFound(NotFound):
    """There is no such key."""

    reason = "KEY_NOT_FOUND"


class AlreadyExists(PenstockError):
    """The name is taken by something else."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class VersionExists(AlreadyExists):
    """The model has such a version, with other contents: versions never change."""

    reason = "VERSION_EXISTS"

    def __init__(self, model: str, version: str) -> None:
        super().__init__(
            f"version {version!r} of {model!r} is another package", model=model, version=version
        )


class TenantExists(AlreadyExists):
    """Another tenant has that id."""

    reason = "TENANT_EXISTS"


class IdentityExists(AlreadyExists):
    """Another key already stands for that identity."""

    reason = "IDENTITY_EXISTS"


class IdempotencyConflict(AlreadyExists):
    """The idempotency key was used for another request within 24 hours."""

    reason = "IDEMPOTENCY_CONFLICT"


class InvalidArgument(PenstockError):
    """The request is malformed; every violation is listed at once."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "FIELD_INVALID"

    def __init__(self, message: str = "", *, violations: Sequence[FieldViolation] = ()) -> None:
        if not message:
            message = "; ".join(f"{v.field}: {v.description}" for v in violations[:3])
            if len(violations) > 3:
                message += f"; and {len(violations) - 3} more"
        super().__init__(message, violations=violations)


class InputTooLong(InvalidArgument):
    """A text is longer than the model reads, and truncation was not asked for."""

    reason = "INPUT_TOO_LONG"


class PackageInvalid(InvalidArgument):
    """A model package cannot be accepted."""

    reason = "PACKAGE_INVALID"


class MediaTypeUnsupported(InvalidArgument):
    """The model reads or writes no such content, or the bytes are not what they claim."""

    reason = "MEDIA_TYPE_UNSUPPORTED"


class ChecksumMismatch(InvalidArgument):
    """The bytes that came are not the ones that were announced."""

    reason = "CHECKSUM_MISMATCH"


class FailedPrecondition(PenstockError):
    """The request is well-formed but does not fit the state of what it names."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class VersionInUse(FailedPrecondition):
    """The version takes traffic that another version could take: move it there first."""

    reason = "VERSION_IN_USE"

    def __init__(self, model: str, version: str) -> None:
        super().__init__(
            f"version {version!r} of {model!r} takes traffic", model=model, version=version
        )


class TaskMismatch(FailedPrecondition):
    """The model does another task than the method is for."""

    reason = "TASK_MISMATCH"

    def __init__(self, model: str, task: str, method: str) -> None:
        super().__init__(
            f"model {model!r} does {task}; {method} cannot call it", model=model, task=task
        )


class VersionNotReady(FailedPrecondition):
    """No replica serves the version that should take traffic."""

    reason = "VERSION_NOT_READY"


class FileInUse(FailedPrecondition):
    """A job that has not ended reads or writes the file."""

    reason = "FILE_IN_USE"


class FileUnsuitable(FailedPrecondition):
    """The file has another purpose than the job needs, or is still growing."""

    reason = "FILE_UNSUITABLE"


class NotTunable(FailedPrecondition):
    """The model cannot be trained further by that method."""

    reason = "NOT_TUNABLE"


class TenantErased(FailedPrecondition):
    """The tenant was erased for good."""

    reason = "TENANT_ERASED"


class KeyRevoked(FailedPrecondition):
    """The key was revoked for good."""

    reason = "KEY_REVOKED"


class Aborted(PenstockError):
    """The call was broken off: read again what it was about, then repeat it."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"


class EtagMismatch(Aborted):
    """The thing has changed since the caller read its etag."""

    reason = "ETAG_MISMATCH"


class Unimplemented(PenstockError):
    """The method exists in the contract but this server does not serve it."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} is not served here", method=method)


class ReaderStalled(Aborted):
    """The caller stopped reading its stream, so the stream was cut off."""

    reason = "READER_STALLED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing was read from this stream for {seconds:.0f} s")


# How much, how long


class ResourceExhausted(PenstockError):
    """A limit was reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class RateLimited(ResourceExhausted):
    """A rate is used up; RetryInfo says when to come back, if the call can ever pass."""

    reason = "RATE_LIMITED"

    def __init__(self, limit: str, retry_after_seconds: float | None, subject: str = "key") -> None:
        super().__init__(
            f"over the limit of {limit}",
            retry_after_seconds=retry_after_seconds,
            limit=limit,
            subject=subject,
        )


class MessageTooLarge(ResourceExhausted):
    """The request or its metadata is larger than the server accepts."""

    reason = "MESSAGE_TOO_LARGE"


class ConcurrencyLimited(ResourceExhausted):
    """As many calls as allowed are open; one must end first."""

    reason = "CONCURRENCY_LIMITED"


class BudgetExhausted(ResourceExhausted):
    """The budget does not cover what the call could cost."""

    reason = "BUDGET_EXHAUSTED"


class JobsLimited(ResourceExhausted):
    """As many jobs as allowed are unfinished; one must end first."""

    reason = "JOBS_LIMITED"


class FileTooLarge(ResourceExhausted):
    """The file has more bytes than one file may have."""

    reason = "FILE_TOO_LARGE"


class StorageLimited(ResourceExhausted):
    """The tenant's files would have more bytes than they may."""

    reason = "STORAGE_LIMITED"


class DeadlineExceeded(PenstockError):
    """The call's deadline passed, or could not be met."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "the deadline passed") -> None:
        super().__init__(message)


class Cancelled(PenstockError):
    """The caller cancelled the call."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"

    def __init__(self, message: str = "the call was cancelled") -> None:
        super().__init__(message)


class Unavailable(PenstockError):
    """Try again shortly; RetryInfo says when."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class NoReplica(Unavailable):
    """No replica serves the model at the moment, in the regions that the caller may use."""

    reason = "NO_REPLICA"

    def __init__(
        self,
        model: str,
        retry_after_seconds: float = 1.0,
        *,
        regions: Collection[str] | None = None,
    ) -> None:
        bound = {} if regions is None else {"regions": ", ".join(sorted(regions))}
        where = f" in {bound['regions']}, the regions allowed to this caller," if bound else ""
        super().__init__(
            f"no replica{where} serves {model!r} right now",
            retry_after_seconds=retry_after_seconds,
            model=model,
        )
        self.metadata = {**self.metadata, **bound}


class ReplicaUnavailable(Unavailable):
    """The replica that had the call went away."""

    reason = "REPLICA_UNAVAILABLE"

    def __init__(self, model: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(
            f"the replica that served {model!r} went away",
            model=model,
            retry_after_seconds=retry_after_seconds,
        )


class Overloaded(Unavailable):
    """The call would have waited longer than its deadline allows."""

    reason = "OVERLOADED"


class DependencyUnavailable(Unavailable):
    """A store that the service needs cannot be reached."""

    reason = "DEPENDENCY_UNAVAILABLE"
