# SPDX-License-Identifier: Apache-2.0
"""What oomtrace uses of orjson, made of the standard library, for Debian 12, which has no python3-orjson.

Found only where there is no orjson.  As strict as that: UTF-8, no lone surrogates, no NaN; one kind of error.
"""

import json
import math
from typing import Any

OPT_INDENT_2 = 1
OPT_APPEND_NEWLINE = 1024

JSONDecodeError = json.JSONDecodeError


def dumps(value: Any, option: int = 0) -> bytes:
    """Compact, or with an indent of two; not escaped, in UTF-8."""
    indented = bool(option & OPT_INDENT_2)
    separators = (",", ": ") if indented else (",", ":")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2 if indented else None, separators=separators)
    return (text + "\n" * bool(option & OPT_APPEND_NEWLINE)).encode()


def loads(data: bytes | str) -> Any:
    """Raises JSONDecodeError for whatever is no JSON."""
    try:
        text = data if isinstance(data, str) else data.decode()
        value = json.loads(text, parse_constant=_refuse, parse_int=_integer, parse_float=_float)
        if "\\u" in text:
            dumps(value)  # cannot encode half of a pair of surrogates
    except JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise JSONDecodeError(str(error), "", 0) from error
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int | float:
    """What does not fit into 64 bits is a float."""
    number = int(digits) if len(digits) <= 20 else 1 << 64
    return number if -(1 << 63) <= number < 1 << 64 else _float(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.40} is too large")
    return number
