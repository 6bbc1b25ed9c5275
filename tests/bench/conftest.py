import pytest
from typer.testing import CliRunner

from vlfer.cli.main import app


@pytest.fixture
def run():
    """Run `vlfer` in this process; the result has stdout, stderr and exit_code."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
