"""Records: dataclasses of which nothing is compiled but `__init__`.

dataclass() compiles up to seven methods for each class while it is imported, which takes 0.4 ms. For forty classes that
was an eighth of the time in which the agent fetches a small file; docs/decisions/0030 has the figures. Here all classes
share the other methods. `fields` and `replace` of `dataclasses` work as usual, and mypy checks all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, cast, dataclass_transform

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make `cls` a record of values: equal to another of its class with the same values, and hashed by them.

    mypy refuses to assign to a field; at run time nothing does.
    """
    made: Any = mutable_record(cls)
    values = attrgetter(*(one.name for one in fields(made)))

    def shown(self: Any) -> str:  # noqa: ANN401  a record
        known = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__name__}({known})"

    made.__eq__ = lambda self, other: type(self) is type(other) and values(self) == values(other)
    made.__hash__ = lambda self: hash(values(self))
    made.__repr__ = shown
    return cast("type[T]", made)


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def mutable_record(cls: type[T]) -> type[T]:
    """Make `cls` a record whose fields change: equal only to itself."""
    # Without a docstring (python -OO) dataclass() writes one, which takes as long as all the rest.
    cls.__doc__ = cls.__doc__ or cls.__name__
    return dataclass(kw_only=True, slots=True, eq=False, repr=False, match_args=False)(cls)
