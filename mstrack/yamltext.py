"""YAML that people write: whatever is wrong with it is a message, and a key that is there twice is wrong."""

from typing import Any

import yaml

from mstrack.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """One mapping of the text, before PyYAML lets the last of several equal keys win."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            named, line = (key.tag, key.value), key.start_mark.line + 1
            if named in lines:
                raise yaml.YAMLError(f"the key '{key.value}' of line {lines[named]} is there again in line {line}; keep one.")
            lines[named] = line
        return node


def parse_yaml(text: str, what: str) -> Any:
    """What a YAML text says.

    Args:
        text: The text.
        what: What it is, for the message.

    Raises:
        UserError: It is not YAML, has a key twice in one place, or a value that cannot be, such as the date 2001-13-45.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not YAML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{what} is not YAML: it is nested too deeply.") from error
    except (ValueError, ArithmeticError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{what} is not YAML: it has a value that cannot be ({error}).") from error
