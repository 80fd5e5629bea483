"""llama.cpp's server in this process, begun in full."""

from __future__ import annotations

from typing import Any


def started(given: Any) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """A server by these settings, whose queue runs: one that is freed before would wait for itself for ever.

    It is handed out when the model is there, a moment before its thread begins to take tasks. The first answer that
    comes by way of the queue says that it does. Raises RuntimeError where it cannot be loaded.
    """
    import xllamacpp  # noqa: PLC0415 - heavy, and only where a model is embedded

    given.endpoint_metrics = True  # behind the key of its port, as the rest
    server = xllamacpp.Server(given)
    server.handle_metrics()
    return server
