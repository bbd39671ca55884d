"""`python -m baco` is the same as the command `baco`."""

from baco.cli.main import main

if __name__ == "__main__":
    main()
