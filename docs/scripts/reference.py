"""Writes the pages of the reference when the site is built (mkdocs-gen-files)."""

import sys
from pathlib import Path

import mkdocs_gen_files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from reference_pages import pages  # noqa: E402

for name, text in pages(ROOT).items():
    with mkdocs_gen_files.open(f"reference/{name}", "w") as file:
        file.write(text)
