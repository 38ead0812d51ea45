"""How this machine reaches others: its proxies and certificates, as its environment names them."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import ssl
import urllib.parse
import urllib.request
from pathlib import Path

from erank_lite.errors import ModelError

_PROXIES = ("http", "https", "socks5", "socks5h")


def proxy_for(url: str) -> str | None:
    """Return the proxy through which `url` is to be asked, or None.

    They are named by HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, exceptions by NO_PROXY: hosts, domains,
    addresses, and networks such as 10.0.0.0/8. This machine itself is never asked through one.

    Raises:
        ModelError: the proxy is of a kind that cannot be used, or not without another package.

    Example:
        >>> import os
        >>> os.environ["ALL_PROXY"] = "http://proxy.example:3128"
        >>> proxy_for("http://models.example:8000"), proxy_for("http://127.0.0.1:8000")
        ('http://proxy.example:3128', None)
        >>> del os.environ["ALL_PROXY"]
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_here(host) or _is_exempt(host, proxies.get("no", "")):
        return None
    scheme, there, _ = proxy.partition("://")
    if not there:
        scheme, proxy = "http", f"http://{proxy}"
    if scheme not in _PROXIES:
        raise ModelError(
            f"{host} is to be asked through {proxy}, which is no address of a proxy",
            f"change HTTPS_PROXY or ALL_PROXY to one of {', '.join(_PROXIES)}, or set NO_PROXY",
        )
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ModelError(
            f"{host} is to be asked through {proxy}, and SOCKS proxies need socksio",
            f"pip install socksio, or set NO_PROXY={host}",
        )
    return proxy


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.endswith(".localhost")


def _is_exempt(host: str, exceptions: str) -> bool:
    for entry in filter(None, (e.strip().lower() for e in exceptions.split(","))):
        name = entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry
        if name == "*":
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
            continue
        except ValueError:  # a name, not an address or a network
            pass
        name = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
        name = name.removeprefix("*").lstrip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def certificates() -> ssl.SSLContext:
    """Return whom this machine trusts: the certificates that it has, or those of SSL_CERT_FILE.

    Raises:
        ModelError: SSL_CERT_FILE or SSL_CERT_DIR names nothing that can be read.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file and not Path(file).is_file():
        raise ModelError(
            f"SSL_CERT_FILE names `{file}`, which is not a file", "correct or unset SSL_CERT_FILE"
        )
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise ModelError(
            f"SSL_CERT_DIR names `{folders}`, which is not a folder",
            "correct or unset SSL_CERT_DIR",
        )
    try:
        import certifi

        file = file or certifi.where()
        return ssl.create_default_context(cafile=file, capath=folders or None)
    except (OSError, ssl.SSLError) as error:
        raise ModelError(f"the certificates in `{file}` cannot be read: {error}") from None
