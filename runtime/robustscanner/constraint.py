"""What a text may be: characters, a pattern, lengths; and what follows for each step of decoding.

A decoder chooses one character after the other. After each of them, an automaton says which may follow so that a whole
text can still come of it; the end is one of them where the text is whole. So no text is read that is not allowed.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import ConstraintError
from robustscanner.spec import ModelSpec

try:
    from re import _parser as _regex  # type: ignore[attr-defined]  # Python's own reading of patterns
except ImportError:  # before 3.11
    import sre_parse as _regex

FORBIDDEN = np.float32(-1e9)

_MOST_STATES = 5_000
_IDS = frozenset[int]


@dataclass(frozen=True)
class Constraint:
    r"""What may be read; all that is given holds together.

    Args:
        characters: those that may stand in a text, as inside the brackets of a regular expression: `"0-9A-F"`.
        pattern: a regular expression for the whole text, such as `r"[A-Z]{2}\d{2,4}"`. It may hold classes, groups,
            alternatives and repeats, but nothing that looks back or ahead.
        length: number of characters, or the fewest and the most.

    Raises:
        ConstraintError: not a pattern, one that looks at what was read before, or lengths that no text has.
    """

    characters: str | None = None
    pattern: str | None = None
    length: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        low, high = self.lengths
        if not 0 <= low <= high:
            raise ConstraintError(f"length is {self.length}; give a number of characters, or the fewest and the most")
        trial = _States({}, 1)
        trial.add(_parse(self.pattern or ""), trial.new())
        if self.characters is not None and len(_parse(f"[{self.characters}]")) != 1:
            raise ConstraintError(f"characters {self.characters!r}: ']' has to stand first, or after a backslash")

    @property
    def lengths(self) -> tuple[int, int | float]:
        """The fewest and the most characters."""
        if self.length is None:
            return 0, float("inf")
        return (self.length, self.length) if isinstance(self.length, int) else self.length

    def automaton(self, spec: ModelSpec) -> "Automaton":
        """For a model's characters and lengths.

        Raises:
            ConstraintError: this model cannot write any such text.
        """
        return _automaton(self, spec)


@dataclass
class _States:
    """An automaton in the making: from each state, where an id leads, and where one gets without any."""

    ids: dict[str, int]  # of the characters that may be read
    longest: int
    steps: list[list[tuple[_IDS, int]]] = field(default_factory=list)
    jumps: list[list[int]] = field(default_factory=list)

    def new(self) -> int:
        if len(self.steps) >= _MOST_STATES:
            raise ConstraintError("the pattern is too large; write it with fewer or smaller repeats")
        self.steps.append([])
        self.jumps.append([])
        return len(self.steps) - 1

    def add(self, nodes: Iterable[tuple[Any, Any]], start: int) -> int:
        """A parsed expression from a state on; returns the state after it."""
        for operator, value in nodes:
            start = self._add_one(str(operator), operator, value, start)
        return start

    def _add_one(self, name: str, operator: Any, value: Any, start: int) -> int:
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            end = self.new()
            ids = frozenset(id_ for character, id_ in self.ids.items() if _holds(operator, value, character))
            self.steps[start].append((ids, end))
            return end
        if name == "SUBPATTERN":
            _, added, dropped, nodes = value
            if added or dropped:
                raise _unsupported("flags")
            return self.add(nodes, start)
        if name == "BRANCH":
            return self._join([self.add(branch, self._branch(start)) for branch in value[1]])
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            fewest, most, repeated = value
            return self._repeat(fewest, most, repeated, start)
        raise _unsupported(name)

    def _branch(self, start: int) -> int:
        state = self.new()
        self.jumps[start].append(state)
        return state

    def _join(self, ends: Iterable[int]) -> int:
        joined = self.new()
        for end in ends:
            self.jumps[end].append(joined)
        return joined

    def _repeat(self, fewest: int, most: int, nodes: Any, start: int) -> int:
        most = min(int(most), max(self.longest, fewest))
        ends = [start]
        for _ in range(most):
            ends.append(self.add(nodes, ends[-1]))
        return self._join(ends[fewest:])


class Automaton:
    """Which ids may follow a text so far; see `Constraint.automaton`."""

    def __init__(self, constraint: Constraint, spec: ModelSpec) -> None:
        self._end, self._steps = spec.charset.end_id, spec.network.max_length
        self._classes = spec.charset.class_count
        self._fewest, most = constraint.lengths
        self._most = int(min(most, self._steps - 1))
        self._states = _States(_readable(constraint, spec), self._most)
        self._begin = self._states.new()
        self._whole = self._states.add(_parse(".*" if constraint.pattern is None else constraint.pattern), self._begin)
        self._alive = self._find_alive()
        if not self._alive[0] & self._closure({self._begin}):
            raise ConstraintError(
                f"{constraint}: no text of at most {self._steps - 1} of this model's characters is like that"
            )

    def accepts(self, ids: Sequence[int]) -> bool:
        """Whether a text is whole and allowed."""
        return self.known(ids) == len(ids) and self._may_end(len(ids), self._after(ids))

    def known(self, ids: Sequence[int]) -> int:
        """How many of the first ids can be the beginning of an allowed text."""
        states = self._closure({self._begin}) & self._alive[0]
        for index, id_ in enumerate(ids):
            states = self._move(states, {id_}, index)
            if not states:
                return index
        return len(ids)

    def mask(self, prefix: Sequence[int] = ()) -> npt.NDArray[np.float32]:
        """What each step may say after a beginning that is fixed, float32 [T, classes].

        What may follow is exact for the step after the prefix; for later ones, it is all that can follow anything.
        """
        mask = np.full((self._steps, self._classes), FORBIDDEN, np.float32)
        states = self._closure({self._begin}) & self._alive[0]
        for step in range(self._steps):
            if step >= len(prefix) and self._may_end(step, states):
                mask[step, self._end] = 0
            ids = {prefix[step]} if step < len(prefix) else self._next(states, step)
            mask[step, sorted(ids)] = 0
            states = self._move(states, ids, step)
            if not states:
                mask[step + 1 :, self._end] = 0  # never reached: a word has ended before
                break
        return mask

    def _after(self, ids: Sequence[int]) -> set[int]:
        states = self._closure({self._begin})
        for index, id_ in enumerate(ids):
            states = self._move(states, {id_}, index)
        return states

    def _may_end(self, length: int, states: set[int]) -> bool:
        return self._fewest <= length <= self._most and self._whole in states

    def _next(self, states: set[int], step: int) -> set[int]:
        """Ids that lead on to an allowed text."""
        alive = self._alive[step + 1] if step < self._most else set()
        return {id_ for state in states for ids, to in self._states.steps[state] if to in alive for id_ in ids}

    def _move(self, states: set[int], ids: set[int], step: int) -> set[int]:
        if step >= self._most:
            return set()
        reached = {to for state in states for known, to in self._states.steps[state] if not known.isdisjoint(ids)}
        return self._closure(reached) & self._alive[step + 1]

    def _closure(self, states: set[int]) -> set[int]:
        """With all that one gets to without an id."""
        found, waiting = set(states), list(states)
        while waiting:
            new = [to for to in self._states.jumps[waiting.pop()] if to not in found]
            found.update(new)
            waiting += new
        return found

    def _find_alive(self) -> list[set[int]]:
        """For each number of characters read, the states from which a whole text is within reach."""
        alive: list[set[int]] = [set() for _ in range(self._most + 1)]
        before = _reversed(self._states.jumps)
        for length in range(self._most, -1, -1):
            found = {self._whole} if self._fewest <= length else set()
            if length < self._most:
                after = alive[length + 1]
                found |= {s for s, edges in enumerate(self._states.steps) if any(i and to in after for i, to in edges)}
            waiting = list(found)
            while waiting:
                new = [state for state in before[waiting.pop()] if state not in found]
                found.update(new)
                waiting += new
            alive[length] = found
        return alive


@lru_cache(maxsize=64)
def _automaton(constraint: Constraint, spec: ModelSpec) -> Automaton:
    return Automaton(constraint, spec)


def readable(spec: ModelSpec) -> dict[str, int]:
    """Ids of the characters that a model can write."""
    charset = spec.charset
    ids = enumerate(charset.tokens[: charset.class_count])
    return {token: id_ for id_, token in ids if id_ not in charset.special_ids}


def spell(text: str, known: Mapping[str, int]) -> list[int]:
    """The ids of a text, by what `readable` gives.

    Raises:
        ConstraintError: a character that the model cannot write.
    """
    if missing := [character for character in text if character not in known]:
        raise ConstraintError(f"{text!r} holds {missing[0]!r}, which this model does not read")
    return [known[character] for character in text]


def _readable(constraint: Constraint, spec: ModelSpec) -> dict[str, int]:
    """Those that may be read."""
    known = readable(spec)
    if constraint.characters is None:
        return known
    ((operator, value),) = _parse(f"[{constraint.characters}]")
    found = {token: id_ for token, id_ in known.items() if _holds(operator, value, token)}
    if not found:
        raise ConstraintError(f"characters {constraint.characters!r}: this model reads none of them")
    return found


def _parse(expression: str) -> list[tuple[Any, Any]]:
    try:
        with warnings.catch_warnings():  # of signs that a later Python may understand otherwise
            warnings.simplefilter("ignore", FutureWarning)
            parsed = _regex.parse(expression)
    except re.error as error:
        raise ConstraintError(f"{expression!r} is no pattern: {error}") from None
    if parsed.state.flags != re.UNICODE:
        raise _unsupported("flags")
    nodes = list(parsed)
    while nodes and str(nodes[0][0]) == "AT" and str(nodes[0][1]).startswith("AT_BEGINNING"):
        nodes.pop(0)
    while nodes and str(nodes[-1][0]) == "AT" and str(nodes[-1][1]).startswith("AT_END"):
        nodes.pop()
    return nodes


def _unsupported(name: str) -> ConstraintError:
    return ConstraintError(
        f"a pattern cannot hold {name.lower().replace('_', ' ')} here: what may follow would depend on more than a "
        "place in the pattern; take classes, groups, alternatives and repeats"
    )


def _holds(operator: Any, value: Any, character: str) -> bool:
    """Whether one item of a parsed expression stands for a character."""
    name, code = str(operator), ord(character)
    if name == "LITERAL":
        return bool(code == value)
    if name == "NOT_LITERAL":
        return bool(code != value)
    if name == "ANY":
        return True
    if name == "RANGE":
        return bool(value[0] <= code <= value[1])
    if name == "CATEGORY":
        letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[str(value).rpartition("_")[2]]
        return bool(re.fullmatch(f"\\{letter.upper() if '_NOT_' in str(value) else letter}", character))
    negated = bool(value) and str(value[0][0]) == "NEGATE"
    return negated != any(_holds(kind, item, character) for kind, item in value[negated:])


def _reversed(edges: Sequence[Sequence[int]]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in edges]
    for source, targets in enumerate(edges):
        for target in targets:
            found[target].append(source)
    return found
