"""Proxies, certificates and folders, as the environments of all kinds of machines name them."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from erank_lite.errors import ModelError
from erank_lite.models.hub import listing
from erank_lite.util import network
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.network import certificates, proxy_for

PROXY = "http://proxy.example:3128"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://a.example", None),
        ({"HTTP_PROXY": PROXY}, "http://a.example", PROXY),
        ({"http_proxy": PROXY}, "https://a.example", None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https://a.example:8000/v1", PROXY),
        ({"ALL_PROXY": PROXY}, "https://a.example", PROXY),
        ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "http://127.0.0.1:8000", None),
        ({"ALL_PROXY": "socks://127.0.0.1:1080"}, "http://localhost:8000", None),
        ({"ALL_PROXY": PROXY}, "http://[::1]:8000", None),
    ],
)
def test_the_proxy_of_an_address(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


@pytest.mark.parametrize(
    ("exceptions", "host", "exempt"),
    [
        ("*", "a.example", True),
        ("a.example", "a.example", True),
        ("example", "a.example", True),
        (".example", "a.example", True),
        ("*.example", "a.example", True),
        ("b.example, a.example:8000 ,", "a.example", True),
        ("ample", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd07:b51a:cc66:f0::/64", "[fd07:b51a:cc66:f0::1]", True),
        ("fd07:b51a:cc66:f0::/64", "a.example", False),
        ("[::1]", "a.example", False),
        ("[fd07::1]", "[fd07::1]", True),
        ("::1,/,:,.", "a.example", False),
    ],
)
def test_exceptions_from_the_proxy(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, host: str, exempt: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("no_proxy", exceptions)
    assert proxy_for(f"http://{host}:8000") == (None if exempt else PROXY)


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ModelError, match="SOCKS proxies need socksio"):
        proxy_for("http://a.example")
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    with pytest.raises(ModelError, match="no address of a proxy"):
        proxy_for("http://a.example")


def test_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert isinstance(certificates(), ssl.SSLContext)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with pytest.raises(ModelError, match=r"SSL_CERT_FILE names .*gone\.pem`, which is not a file"):
        certificates()
    (tmp_path / "bad.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bad.pem"))
    with pytest.raises(ModelError, match="cannot be read"):
        certificates()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SSL_CERT_FILE", "/nowhere/gone.pem", "which is not a file"),
        ("SSL_CERT_FILE", os.devnull, "which is not a file"),
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT is `huggingface.co`"),
    ],
)
def test_what_keeps_the_hub_from_being_asked_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    from huggingface_hub import constants

    endpoint = value if variable == "HF_ENDPOINT" else "https://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ModelError, match=says):
        listing("owner/name", None)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ERANK_LITE_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    with pytest.raises(ModelError, match="this user has no home") as raised:
        cache_folder()
    assert "ERANK_LITE_CACHE" in str(raised.value.hint)
    monkeypatch.setenv("ERANK_LITE_CACHE", "~no-such-user/x")
    with pytest.raises(ModelError, match="a home that is not there"):
        cache_folder()
