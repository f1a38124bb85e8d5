"""What the commands of analyses share: their arguments, and the folder they write to."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path


def parser_of(
    family: str,
    description: str,
    examples: str,
    *,
    several: bool = False,
    output: str = "folder to write to, made if its parent is there",
    metavar: str = "DIR",
) -> ArgumentParser:
    """STORE -o DIR: `store` and `output`; STORE... and `stores` with `several`.

    `output` is the help of -o, `metavar` what it calls its argument.
    """
    parser = ArgumentParser(
        prog=f"python -m analysis.{family}",
        description=description,
        epilog=examples,
        formatter_class=RawDescriptionHelpFormatter,
    )
    stores = {"nargs": "+", "dest": "stores"} if several else {"dest": "store"}
    parser.add_argument(type=Path, metavar="STORE", help="folder of a sweep", **stores)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar=metavar, help=output)
    return parser


def check_parent(output: Path) -> None:
    """FileNotFoundError for a folder that cannot be made, or a file that cannot be written."""
    if not output.parent.is_dir():
        raise FileNotFoundError(f"cannot write to {output}: no folder {output.parent}")
