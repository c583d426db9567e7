"""Every refusal on the wire has one form, OpenAI's: {"error": {"message", "type", "param", "code"}}.

`ApiError` is raised by routes; Puna's own errors are turned into one by their class, so that a message with its way out
reaches the client, and the client's library raises the class that it has for the status. What nobody foresaw says
nothing of itself on the wire: it stands in the log under the request's id.
"""

from __future__ import annotations

import math
from typing import Any

from puna.base import errors

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    501: "not_implemented_error",
    502: "model_error",
    503: "server_error",
}
# Class of Puna -> (status, code); the first that fits.
_CLASSES: tuple[tuple[type[errors.PunaError], int, str], ...] = (
    (errors.ConfigError, 400, "invalid_value"),
    (errors.InputError, 400, "invalid_value"),
    (errors.MissingExtraError, 501, "not_installed"),
    (errors.RemoteError, 502, "provider_error"),
    (errors.BusyError, 409, "busy"),
    (errors.ResourceError, 503, "out_of_resources"),
    (errors.PunaError, 500, "internal_error"),
)


class ApiError(Exception):
    """A refusal with its HTTP status.

    Args:
        status: of HTTP.
        message: what is wrong, with the value and the limit, and the way out.
        param: the field of the request that it is about.
        code: a word for programs.
        headers: of the answer, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.param = _sendable(message), param and _sendable(param)
        self.status, self.code = status, code
        self.headers = headers or {}

    @property
    def type(self) -> str:
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": fields}


def _sendable(text: str) -> str:
    """JSON may bring half a character, which no answer can bear."""
    return text.encode(errors="backslashreplace").decode()


def not_found(what: str, id: str, param: str | None = None) -> ApiError:
    """For what is not there, or is another owner's: nobody learns which of the two."""
    return ApiError(404, f"The {what} {id!r} was not found.", param=param, code="not_found")


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param, code=code)


def not_implemented(message: str) -> ApiError:
    """For a route whose work does not exist yet: never a made-up result."""
    return ApiError(501, message, code="not_implemented")


def as_api_error(error: Exception) -> ApiError:
    """Any error as what the client is told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, errors.RemoteError) and getattr(error, "status", 0) == 429:
        wait = getattr(error, "retry_after", 0)
        headers = {"Retry-After": str(math.ceil(wait))} if wait else {}
        return ApiError(429, " ".join(str(error).split()), code="provider_busy", headers=headers)
    for kind, status, code in _CLASSES:
        if isinstance(error, kind):
            return ApiError(status, " ".join(str(error).split()), code=code)
    return ApiError(
        500, "Something went wrong here; the server's log has it under this request's id.", code="internal_error"
    )
