"""The error tree. Catch broadly, recover narrowly; each message says what, where and what to do.

StepwellError
├── ConfigError           stepwell.toml or prices.toml: file, line, field
├── AdmitError            the caller's side: never cost anything
│   ├── BadRequest        400  not JSON, wrong type, a field missing
│   ├── NotAllowed        401  no key, or an unknown one
│   ├── UnknownModel      404
│   ├── TooLarge          413
│   └── Overloaded        503  draining, or too many at once
├── EngineError           the model's side
│   ├── EngineTimeout     504  connecting, first byte or the whole answer took too long
│   ├── EngineUnavailable 502  refused, unreachable, breaker open
│   ├── EngineBadReply    502  not HTTP, not JSON, or cut off in the middle
│   └── EngineRefusal     the engine answered with an error of its own, passed on as it is
├── StoreError            a file or database that cannot be read or written
├── NotAuthentic          a signed file that no trusted key signed as it is
├── TemplateError         a schema, template, bundle or manifest that is wrong, or a campaign that cannot go on
└── DistillError          data, a teacher, a model or a training run that is wrong or cannot go on
"""

from __future__ import annotations


class StepwellError(Exception):
    """Everything that Stepwell raises on purpose."""

    status = 500
    code = "internal_error"


class ConfigError(StepwellError):
    """A configuration file is wrong. `str()` reads `file:line: field: what, what to do`."""

    code = "config_error"

    def __init__(self, what: str, *, file: str = "", line: int = 0, field: str = "") -> None:
        place = f"{file}:{line}: " if line else f"{file}: " if file else ""
        super().__init__(f"{place}{field}{': ' if field else ''}{what}")
        self.what, self.file, self.line, self.field = what, file, line, field


class AdmitError(StepwellError):
    """The request is not accepted; `param` names the field at fault."""

    status = 400
    code = "invalid_request"

    def __init__(self, what: str, *, param: str | None = None) -> None:
        super().__init__(what)
        self.param = param


class BadRequest(AdmitError):
    """The body is not what the API says."""


class NotAllowed(AdmitError):
    """No API key, or one that nobody configured."""

    status = 401
    code = "invalid_api_key"


class UnknownModel(AdmitError):
    """No route has this name."""

    status = 404
    code = "model_not_found"


class TooLarge(AdmitError):
    """The body or its headers pass the limit."""

    status = 413
    code = "request_too_large"


class Overloaded(AdmitError):
    """The gateway is draining or full; try again, elsewhere or later."""

    status = 503
    code = "overloaded"


class EngineError(StepwellError):
    """An engine did not answer. `engine` names it."""

    status = 502
    code = "engine_error"

    def __init__(self, what: str, *, engine: str = "") -> None:
        super().__init__(what)
        self.engine = engine

    def __str__(self) -> str:
        what = super().__str__()
        return f"engine {self.engine}: {what}" if self.engine else what


class EngineTimeout(EngineError):
    """A time limit of the engine passed."""

    status = 504
    code = "engine_timeout"


class EngineUnavailable(EngineError):
    """The engine cannot be reached, or its breaker is open."""

    code = "engine_unavailable"


class EngineBadReply(EngineError):
    """The engine's reply is broken or was cut off."""

    code = "engine_bad_reply"


class EngineRefusal(EngineError):
    """The engine said no with a status and body of its own; both go to the caller as they are."""

    code = "engine_refusal"

    def __init__(self, what: str, *, engine: str, status: int, body: bytes, retry_after_s: float | None = None) -> None:
        super().__init__(what, engine=engine)
        self.status, self.body, self.retry_after_s = status, body, retry_after_s


class StoreError(StepwellError):
    """A database or file cannot be read or written."""

    code = "store_error"


class NotAuthentic(StepwellError):
    """Bytes that no trusted key signed as they are."""

    code = "not_authentic"


class TemplateError(StepwellError):
    """A schema, template, catalogue, bundle or manifest is wrong. `str()` reads `file:line: what, what to do`."""

    code = "template_error"

    def __init__(self, what: str, *, file: str = "", line: int = 0) -> None:
        place = f"{file}:{line}: " if line else f"{file}: " if file else ""
        super().__init__(f"{place}{what}")
        self.file, self.line = file, line


class DistillError(StepwellError):
    """Data, a teacher, a model or a training run is wrong. `str()` reads `file:line: what, what to do`."""

    code = "distill_error"

    def __init__(self, what: str, *, file: str = "", line: int = 0) -> None:
        place = f"{file}:{line}: " if line else f"{file}: " if file else ""
        super().__init__(f"{place}{what}")
        self.file, self.line = file, line
