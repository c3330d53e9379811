# SPDX-License-Identifier: Apache-2.0
"""sinks/destination.py: valid and invalid URIs, and secrets in them."""

from pathlib import Path

import pytest

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks.destination import Destination, Option, UriForm, build_destination, display_uri, split_uri
from tracer.delivery.sinks.open import open_uri, parse_destination, parse_destinations, uri_forms

FORM = UriForm(
    "x://HOST[:PORT][/PATH]",
    "",
    {
        "password": Option("", kind="secret"),
        "wait": Option("", 5, "seconds"),
        "size": Option("", 1 << 20, "bytes"),
        "count": Option("", 3, "count"),
        "least": Option("", 1, "seconds", 1),
        "sync": Option("", False, "flag"),
        "ca-file": Option("", kind="path"),
        "qos": Option("", "1", ("0", "1")),
    },
)


def target(text: str) -> Destination:
    scheme, address, options = split_uri(text)
    return build_destination(scheme, address, options, FORM)


def refusal(text: str) -> str:
    with pytest.raises(TracerError) as caught:
        target(text)
    assert caught.value.exit_code == EXIT_USAGE
    return str(caught.value)


def test_defaults() -> None:
    """Every option has a value."""
    options = target("x://host").options
    assert {name: options[name] for name in FORM.options} == {
        "password": None, "wait": 5, "size": 1 << 20, "count": 3, "least": 1, "sync": False, "ca-file": None,
        "qos": "1",
    }  # fmt: skip
    assert (options["style"], options["types"], options["spool-bytes"]) == ("nested", None, 64 << 20)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("wait=90", 90),
        ("wait=2m", 120),
        ("wait=1d", 86400),
        ("size=7", 7),
        ("size=2G", 2 << 30),
        ("count=12", 12),
        ("sync=yes", True),
        ("ca-file=/a%26b", "/a&b"),
        ("qos=0", "0"),
    ],
)
def test_values(pair: str, value: object) -> None:
    """The value of each kind of option."""
    assert target(f"x://host?{pair}").options[pair.partition("=")[0]] == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x://host?wait=soon", "wait=soon is not a number"),
        ("x://host?wait=1M", "wait=1M is not a number"),
        ("x://host?least=0m", "least=0m is too small: use 1 or more"),
        ("x://host?wait=999999999999d", "is too long"),
        ("x://host?size=-1", "size=-1 is not a number"),
        ("x://host?sync=1", "use yes or no"),
        ("x://host?ca-file=ca.pem", "not an absolute path"),
        ("x://host?qos=2", "use one of 0, 1"),
        ("x://host?colour=red", "the options are ca-file, count, least, name, password-file, qos"),
        ("x://host?password=tiger", "use password-file=PATH or password-env=VARIABLE"),
        ("x://host?wait", "option 'wait' has no value"),
        ("x://host?style=xml", "use one of nested"),
    ],
)
def test_refused(text: str, said: str) -> None:
    """One line says what is wrong, and what to write."""
    assert said in refusal(text)


@pytest.mark.parametrize("scheme", [scheme for scheme, form in uri_forms().items() if "timeout" in form.options])
def test_no_time_at_all(scheme: str) -> None:
    """No output accepts a timeout of 0."""
    address = "/run/x" if "unix" in scheme or scheme == "journald" else "//host/x"
    with pytest.raises(TracerError, match="timeout=0 is too small"):
        parse_destination(f"{scheme}:{address}?timeout=0")
    assert parse_destination(f"{scheme}:{address}?timeout=1").options["timeout"] == 1


def test_password_is_not_repeated() -> None:
    """A misplaced secret is not shown in messages."""
    assert "tiger" not in refusal("x://host?password=tiger")


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("x://host", "host", 99, ""),
        ("x://host:1/a/b", "host", 1, "/a/b"),
        ("x://[::1]:514", "::1", 514, ""),
        ("x://[fe80::1%25eth0]/", "fe80::1%eth0", 99, "/"),
        ("x://127.0.0.1:65535?count=1", "127.0.0.1", 65535, ""),
    ],
)
def test_host(text: str, host: str, port: int, path: str) -> None:
    """Names, and addresses of both families."""
    found = target(text)
    assert (found.host_port(99), found.path) == ((host, port), path)


@pytest.mark.parametrize(
    "text", ["x:host", "x://", "x://:1", "x://a:0", "x://a:65536", "x://a:b", "x://::1", "x://[::1"]
)
def test_no_host(text: str) -> None:
    """Invalid hosts are refused."""
    with pytest.raises(TracerError, match="missing or invalid host"):
        target(text).host_port(1)


def test_secret_from_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A secret is read each time, without the final newline; a file that others can read is reported."""
    path = tmp_path / "password"
    path.write_text("tiger\n")
    path.chmod(0o600)
    found = target(f"x://host?password-file={path}")
    assert found.secret("password") == "tiger"
    path.write_text("lion\n")
    assert found.secret("password") == "lion"
    assert capfd.readouterr().err == ""
    path.chmod(0o644)
    assert found.secret("password") == "lion"
    assert found.secret("password") == "lion"
    assert capfd.readouterr().err.count("readable by all users") == 1, "it is told once"
    path.unlink()
    with pytest.raises(TracerError, match="No such file"):
        found.secret("password")


def test_secret_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing secret is an error, not an empty password."""
    found = target("x://host?password-env=TIGER")
    with pytest.raises(TracerError, match="TIGER is not in the environment"):
        found.secret("password")
    monkeypatch.setenv("TIGER", "tiger")
    assert found.secret("password") == "tiger"
    assert target("x://host").secret("password") is None


def test_same_place_twice() -> None:
    """Two outputs to one destination would share a spool: they need names."""
    with pytest.raises(TracerError, match="configured twice"):
        parse_destinations(["file:/a", "file:/a?style=flat"])
    assert [each.uri for each in parse_destinations(["file:/a", "file:/a?name=b", "stdout"])] == [
        "file:/a",
        "file:/a#b",
        "stdout",
    ]


@pytest.mark.parametrize("text", ["file", "file:", "fil:/a", "", ":", "?x=y"])
def test_no_output(text: str) -> None:
    """Unknown schemes, and incomplete URIs."""
    with pytest.raises(TracerError) as caught:
        parse_destination(text)
    assert caught.value.exit_code == EXIT_USAGE


def test_password_before_the_host() -> None:
    """A password in a URI would be in the list of processes; the message does not repeat it."""
    with pytest.raises(TracerError, match="must not contain a user name or password") as caught:
        parse_destination("https://scott:tiger@example.org/x?types=nothing")
    assert "tiger" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://bob:geheim@logs.example.org:8443/geheim?token=geheim", "https://logs.example.org:8443"),
        ("https://logs.example.org#geheim", "https://logs.example.org"),
        ("https://bob:ge/heim@logs.example.org/", "https://..."),
        ("https://bob:geheim%40logs.example.org/", "https://..."),
        ("https:bob:geheim@logs.example.org", "https:..."),
        ("https:/hooks.example.org/geheim", "https:..."),
        ("//bob:geheim@logs.example.org", "..."),
        ("hooks.example.org/geheim", "hooks.example.org..."),
        ("kafka://a:1,[::1]:2/topic", "kafka://a:1,[::1]:2"),
        ("/var/log/x", "/var/log/x"),
        ("/bob:geheim@logs.example.org/x", "..."),
        ("file:/a b?style=geheim", "file:/a b"),
        ("file:/a\x1b\udcff", r"file:/a\x1b\udcff"),
        ("stdout", "stdout"),
        ("stderr", "stderr"),
        ("", ""),
    ],
)
def test_for_everybody(text: str, told: str) -> None:
    """Messages show no secrets of any URI, valid or not, but identify the output."""
    assert display_uri(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "https://scott:tiger@example.org/tiger?wait",
        "httpx://scott:tiger@example.org/tiger",
        "https://example.org/tiger?types=nothing",
        "https://example.org/?tiger%20%3D",
        "https:example.org/tiger",
        "https://example.org:0/tiger",
        "https://example.org/tiger%FF",
    ],
)
def test_no_secret_in_refusals(text: str) -> None:
    """A service's log has many readers: messages contain no secrets."""
    with pytest.raises(TracerError) as caught:
        open_uri(text)
    assert "tiger" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "file:/a%00b",
        "file:/a%FF",
        "file:/a\udcff",
        "http://127.0.0.1:9/?user=%FFx",
        "http://h/?name=%00",
        "syslog+unix:/a%00",
        "stdout?n\udcff=1",
    ],
)
def test_no_text(text: str) -> None:
    """URIs that are not text are refused."""
    with pytest.raises(TracerError, match="not text: write UTF-8") as caught:
        open_uri(text)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("scheme", ["http", "otlp+https", "syslog+tcp", "syslog+udp", "forward", "kafka", "mqtt"])
@pytest.mark.parametrize("host", ["logs.example.org ", "a b", "a%0ab", "a%7f", "a..b", "x" * 64 + ".org"])
def test_host_is_no_name(scheme: str, host: str) -> None:
    """An invalid host name is reported at once."""
    with pytest.raises(TracerError, match="invalid host name"):
        open_uri(f"{scheme}://{host}/topic")


def test_path_is_decoded() -> None:
    """A path may contain an encoded question mark."""
    assert parse_destination("file:/a%3Fb%25?types=oom_kill").address == "/a?b%"
