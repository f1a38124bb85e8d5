"""Docstrings are plain text: a `<` in them opens no tag (an extension of griffe, in mkdocs.yml)."""

import re
from typing import Any

import griffe


def escaped(text: str) -> str:
    """Markdown that shows every `<` of a plain text; code in backticks is left as it is."""
    return re.sub(r"`[^`]*`|<", lambda match: "&lt;" if match[0] == "<" else match[0], text)


class PlainDocstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = escaped(obj.docstring.value)
