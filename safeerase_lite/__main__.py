"""`python -m safeerase_lite` is `safeerase`."""

from safeerase_lite.cli import app

if __name__ == "__main__":
    app(prog_name="safeerase")
