"""Calls of the command line in tests, and the output that a success or a refusal prints."""

from typer.testing import CliRunner, Result

from vae_pyro.cli.main import app

FAST = ["--epochs", "2", "--set", "encoder.hidden=[16]", "--set", "batch_size=200"]


def call(*arguments: object) -> Result:
    """The result of ``vae-pyro`` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    """The output of a call that succeeds, its lines joined."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: object) -> str:
    """The output of a call that is refused in one line, without a traceback."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())
