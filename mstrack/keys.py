"""What the keys of a recipe mean, written into the recipe itself."""

import re
from typing import Any

from mstrack.config import Config, section_of


def explain_keys(text: str) -> str:
    """What `dump_config` wrote, with a comment above each key that says what it means; a recipe still."""
    lines: list[str] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.match(r"( *(?:- )?)(\w+):", line)
        if found:
            indent, key = len(found[1]), found[2]
            above = [*((place, part) for place, part in above if place < indent), (indent, key)]
            meaning = _meaning([part for _, part in above])
            lines += [f"{found[1].partition('-')[0]}# {meaning}"] if meaning else []
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _meaning(keys: list[str]) -> str:
    """The description of a dotted key, or of the section that it is; empty where there is none."""
    section: Any = Config
    for key in keys:
        field = section.model_fields.get(key) if section is not None else None
        if field is None:
            return ""
        section = section_of(field.annotation)
        said = field.description or ((section.__doc__ or "") if section else "")
    return said.partition("\n")[0].rstrip(".")
