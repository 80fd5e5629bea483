"""An nginx configuration for bundles: an origin that serves their compressed forms, and an edge cache before it."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

FOREVER = "public, max-age=31536000, immutable"
SHORT = "public, max-age=30, stale-while-revalidate=300, stale-if-error=86400"
_HEADERS = """\
        add_header Cache-Control "{lasts}" always;
        add_header Access-Control-Allow-Origin "*" always;
        add_header X-Content-Type-Options nosniff always;
        add_header Timing-Allow-Origin "*" always;
"""
_ORIGIN = """\
server {{
    listen {listen};
    server_name _;
    root {folder};
    default_type application/json;
    types {{ application/json json; application/zstd zst; }}
    server_tokens off;
    # Nothing here depends on who asks: no cookie goes in or out.
    proxy_hide_header Set-Cookie;
    gzip_static on;
{brotli}    location /t/ {{
        # What never changes need not be looked up again.
        open_file_cache max=4096 inactive=10m;
        open_file_cache_valid 10m;
        # One write carries head and body of a small file.
        sendfile off;
{forever}    }}
    location = /manifest.json {{
        gzip_static off;
{no_brotli}{short}    }}
    location / {{ return 404; }}
}}
"""
_EDGE = """\
proxy_cache_path {cache} levels=1:2 keys_zone=stepwell:8m max_size=256m inactive=30d use_temp_path=off;
server {{
    listen {edge};
    server_name _;
    server_tokens off;
    location / {{
        proxy_pass http://{listen};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Cookie "";
        proxy_set_header Authorization "";
        proxy_set_header Accept-Encoding $stepwell_encoding;
        proxy_hide_header Set-Cookie;
        proxy_cache stepwell;
        # The path and the encoding alone: two readers are one.
        proxy_cache_key $uri$stepwell_encoding;
        proxy_cache_lock on;
        proxy_cache_revalidate on;
        proxy_cache_background_update on;
        proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
        add_header Cache-Status "edge; $upstream_cache_status" always;
    }}
}}
"""
_ENCODINGS = """\
map $http_accept_encoding $stepwell_encoding {{
    default "";
    ~gzip gzip;
{brotli}}}
"""


class Edge(Struct, frozen=True):
    """What is served where."""

    folder: Path
    listen: str
    edge: str = ""
    cache: Path = Path("/var/cache/nginx/stepwell")
    brotli: bool = True


def nginx(edge: Edge) -> str:
    """A file for nginx's `http` block."""
    origin = _ORIGIN.format(
        listen=edge.listen,
        folder=_quoted(edge.folder),
        brotli="    brotli_static on;\n" if edge.brotli else "",
        no_brotli="        brotli_static off;\n" if edge.brotli else "",
        forever=_HEADERS.format(lasts=FOREVER),
        short=_HEADERS.format(lasts=SHORT),
    )
    if not edge.edge:
        return origin
    encodings = _ENCODINGS.format(brotli="    ~br br;\n" if edge.brotli else "")
    return encodings + _EDGE.format(cache=_quoted(edge.cache), edge=edge.edge, listen=edge.listen) + origin


def _quoted(path: Path) -> str:
    """A path as nginx reads it."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
