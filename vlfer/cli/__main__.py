"""`python -m vlfer.cli` is `vlfer`."""

from vlfer.cli.main import app

if __name__ == "__main__":
    app(prog_name="vlfer")
