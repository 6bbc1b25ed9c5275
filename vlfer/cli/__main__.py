"""`python -m vlfer.cli` is `vlfer`."""

from vlfer.cli.main import main

if __name__ == "__main__":
    main()
