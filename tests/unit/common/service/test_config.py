from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from shoal_common.auth import TOKEN_PATH_VARIABLE, TokenError, load_token, new_token
from shoal_common.service.config import ConfigError, ServiceConfig, from_extra, load, setting


@dataclass(frozen=True, kw_only=True)
class Config(ServiceConfig):
    """A service for these tests."""

    SERVICE: ClassVar[str] = "sample"

    interval_s: float = setting(1.5, doc="pause between two beats", unit="seconds", minimum=0.1, maximum=60)
    workers: int | None = setting(None, doc="number of workers", minimum=1)
    eager: bool = setting(False, doc="begin at once")
    endpoints: tuple[str, ...] = setting((), doc="where to find the others")
    resources: dict[str, float] = setting({}, doc="what there is")  # noqa: RUF009
    directory: Path = setting(Path("/srv"), doc="where files lie")  # noqa: RUF009


TOKEN = {"SHOAL_AUTH_TOKEN": "secret"}


def read(*argv: str, **environ: str) -> Config:
    return load(Config, argv, {**TOKEN, **environ})


def test_defaults() -> None:
    config = read()
    assert config == Config(token="secret")
    assert (config.host, config.interval_s, config.workers) == ("127.0.0.1", 1.5, None)


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_default() -> None:
    assert read(SHOAL_SAMPLE_INTERVAL_S="3").interval_s == 3
    assert read("--interval-s", "4", SHOAL_SAMPLE_INTERVAL_S="3").interval_s == 4


def test_every_type_is_read_from_text() -> None:
    config = read(
        "--workers=3", "--eager=true", "--endpoints=a:1, b:2", '--resources={"CPU": 0.5}', "--directory=/tmp/x"
    )
    assert config.workers == 3
    assert config.eager is True
    assert config.endpoints == ("a:1", "b:2")
    assert config.resources == {"CPU": 0.5}
    assert config.directory == Path("/tmp/x")
    assert read("--workers=").workers is None


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--interval-s", "0", "a number from 0.1 to 60, in seconds"),
        ("--interval-s", "soon", "a number from 0.1 to 60, in seconds"),
        ("--interval-s", "nan", "a number from 0.1 to 60, in seconds"),
        ("--workers", "0", "a whole number of at least 1"),
        ("--workers", "2.5", "a whole number of at least 1"),
        ("--eager", "maybe", "true or false"),
        ("--log-level", "loud", "one of debug, info, warning, error"),
        ("--resources", "CPU=1", "JSON for dict"),
        ("--port", "65536", "a whole number from 0 to 65535"),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(flag: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as of_flag:
        read(f"{flag}={value}")
    assert str(of_flag.value) == f"{flag}={value!r} is not accepted: expected {expected}"
    variable = "SHOAL_SAMPLE_" + flag.removeprefix("--").replace("-", "_").upper()
    with pytest.raises(ConfigError) as of_variable:
        read(**{variable: value})
    assert str(of_variable.value) == f"{variable}={value!r} is not accepted: expected {expected}"


def test_an_unknown_variable_warns_and_names_the_one_that_was_meant() -> None:
    with pytest.warns(UserWarning, match=r"SHOAL_SAMPLE_INTERVAL is not .* did you mean SHOAL_SAMPLE_INTERVAL_S\?"):
        read(SHOAL_SAMPLE_INTERVAL="3")


def test_variables_of_other_services_are_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(SHOAL_OTHER_INTERVAL="3")


def test_an_unknown_flag_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--token", "secret")
    assert ended.value.code == 2
    assert "unrecognized arguments: --token" in capsys.readouterr().err


def test_help_tells_unit_default_and_variable_of_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "pause between two beats, in seconds [SHOAL_SAMPLE_INTERVAL_S; default 1.5]" in text
    assert "--token" not in text


@dataclass(frozen=True, kw_only=True)
class Demanding(ServiceConfig):
    SERVICE: ClassVar[str] = "demanding"

    directory: str = setting(doc="where files lie")


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--directory \(or SHOAL_DEMANDING_DIRECTORY\) is missing: where files lie"):
        load(Demanding, [], dict(TOKEN))


def test_a_client_library_that_is_missing_is_named_with_what_installs_it() -> None:
    with (
        pytest.raises(ConfigError, match=r"no_such_library is not installed.*'shoal-common\[deploy\]'"),
        from_extra("deploy"),
    ):
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401


def test_the_token_is_not_shown_and_not_inherited() -> None:
    environ = dict(TOKEN)
    config = load(Config, [], environ)
    assert config.token == "secret"
    assert "secret" not in repr(config)
    assert "SHOAL_AUTH_TOKEN" not in environ


def test_the_token_comes_from_the_file_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from file\n")
    assert load_token({TOKEN_PATH_VARIABLE: str(path)}) == "from file"


def test_the_token_file_in_the_home_directory_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / ".shoal" / "auth_token"
    path.parent.mkdir()
    path.write_text("from home")
    path.chmod(0o644)
    with pytest.raises(TokenError, match=f"chmod 600 {path}"):
        load_token({"HOME": str(tmp_path)})
    path.chmod(0o600)
    assert load_token({"HOME": str(tmp_path)}) == "from home"


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_no_token_says_where_to_put_one(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TokenError, match=f"{path}.*the token of the cluster's head into it"):
        load_token({TOKEN_PATH_VARIABLE: str(path)})


@pytest.mark.parametrize("token", ["sé", "a\nb", "a\x00"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    for environ in ({TOKEN_PATH_VARIABLE: str(path)}, {"SHOAL_AUTH_TOKEN": token}):
        with pytest.raises(TokenError, match="printable ASCII") as refused:
            load_token(environ)
        assert token not in str(refused.value)


def test_new_tokens_differ() -> None:
    assert new_token() != new_token()
    assert len(bytes.fromhex(new_token())) == 32
