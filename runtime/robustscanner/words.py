"""The best word of a list, under the model's own probabilities.

A run follows the likeliest tokens and says how likely each was. Where the model gives the token that it took the
probability p, any other token has at most min(p, 1 - p); an engine that tells all probabilities gives each its own. So
every run bounds all words that leave its path, node by node of the list's tree. The search goes on from the node with
the highest bound, until no bound exceeds the best whole word: then no word of the list is better. Mostly the free
reading is such a word, and nothing more has to run.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robustscanner.constraint import FORBIDDEN, readable, spell
from robustscanner.errors import ConstraintError
from robustscanner.session import Allowed, Probabilities, Scores, Tokens
from robustscanner.spec import ModelSpec

MOST_WORDS = 100_000
MOST_RUNS = 16  # of one picture; where nothing can be read, all words are equally bad and bounds part none of them


@dataclass(frozen=True)
class Read:
    """One picture, read under a mask."""

    tokens: Tokens  # (T,)
    scores: Scores  # (T,)
    chances: Probabilities | None = None  # of every class at each step that ran; None: the engine does not tell


Run = Callable[[Allowed], Read]  # by what is allowed [T, classes]


@dataclass(frozen=True)
class Found:
    """The outcome of a search; probabilities are products over all tokens of a word, its end included."""

    ids: list[int]
    probability: float
    others: float  # no other word of the list has a higher probability than this


class WordList:
    """Words of which one is to be read, as they are written: case counts.

    Args:
        words: at most 100,000; each may stand there more than once.

    Raises:
        ConstraintError: no words, or too many.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words) - {""})
        if not 0 < len(self.words) <= MOST_WORDS:
            raise ConstraintError(f"{len(self.words)} words; give from 1 to {MOST_WORDS:,}")
        self._lexicons: dict[ModelSpec, Lexicon] = {}

    def automaton(self, spec: ModelSpec) -> "Lexicon":
        """For a model.

        Raises:
            ConstraintError: a word that this model cannot write.
        """
        if spec not in self._lexicons:
            self._lexicons[spec] = Lexicon(self.words, spec)
        return self._lexicons[spec]


@dataclass(order=True)
class _Branch:
    """Words that share a beginning, less some continuations; the highest bound comes first."""

    bound: float  # negative, for the heap
    rows: npt.NDArray[np.intp] = field(compare=False)  # of the table
    depth: int = field(compare=False)  # tokens that they share
    probability: float = field(compare=False)  # of the beginning


class Lexicon:
    """A list of words in a model's ids."""

    def __init__(self, words: Sequence[str], spec: ModelSpec) -> None:
        known, self._spec = readable(spec), spec
        longest = max(map(len, words))
        if longest >= spec.network.max_length:
            word = next(word for word in words if len(word) == longest)
            raise ConstraintError(f"{word!r} is longer than the {spec.network.max_length - 1} characters of this model")
        self._table = np.full((len(words), longest + 1), spec.charset.end_id, np.int32)
        for row, word in zip(self._table, words, strict=True):
            row[: len(word)] = spell(word, known)

    def search(self, tokens: Tokens, scores: Scores, run: Run) -> Found:
        """The best word of a picture.

        Args:
            tokens: of the free reading, (T,).
            scores: their probabilities, (T,).
            run: reads the picture again under a mask [T, classes].
        """
        everything = _Branch(-1.0, np.arange(len(self._table)), 0, 1.0)
        word, left = self._follow(everything, Read(tokens, scores))
        bound = max((-branch.bound for branch in left), default=0.0)
        if word is not None and word[0] >= bound:
            return Found(word[1], word[0], bound)
        return self._search(everything, run)

    def _search(self, everything: _Branch, run: Run) -> Found:
        """Branch after branch, where the free reading alone does not tell."""
        best: tuple[float, list[int]] = (-1.0, [])
        second, waiting, runs = 0.0, [everything], 0
        while waiting and -waiting[0].bound > best[0] and runs < MOST_RUNS:
            branch = heapq.heappop(waiting)
            word = self._whole(branch)
            if word is None:
                runs += 1
                word, left = self._follow(branch, run(self._mask(branch)))
                for one in left:
                    heapq.heappush(waiting, one)
            if word is not None:
                second = max(second, min(best[0], word[0]))
                best = max(best, word)
        if not best[1]:  # of such words, none stands out
            best = self._score(min(waiting).rows[0], run)
        return Found(best[1], best[0], max(second, -waiting[0].bound if waiting else 0.0))

    def _whole(self, branch: _Branch) -> tuple[float, list[int]] | None:
        """The word of a branch that goes no further, and its probability."""
        row = branch.rows[0]
        if not branch.depth or self._table[row, branch.depth - 1] != self._spec.charset.end_id:
            return None
        return branch.probability, self._ids(row)

    def _follow(self, branch: _Branch, read: Read) -> tuple[tuple[float, list[int]] | None, list[_Branch]]:
        """The word at the end of a run's path, if there is one, and the branches that leave the path."""
        rows, probability, left = branch.rows, branch.probability, []
        for depth in range(branch.depth, self._table.shape[1]):
            token, chance = read.tokens[depth], float(read.scores[depth])
            taken = self._table[rows, depth] == token
            if not taken.all():
                left += self._leave(rows[~taken], depth, probability, read)
            rows, probability = rows[taken], probability * chance
            if not len(rows):
                return None, left
            if token == self._spec.charset.end_id:
                return (probability, self._ids(rows[0])), left
        return None, left

    def _leave(self, rows: npt.NDArray[np.intp], depth: int, probability: float, read: Read) -> list[_Branch]:
        """Words that leave a path, whose beginning has that probability: by their next token, where all are told."""
        if read.chances is None:
            chance = float(read.scores[depth])
            return [_Branch(-probability * min(chance, 1 - chance), rows, depth, probability)]
        following, left = self._table[rows, depth], []
        for token in np.unique(following):
            reached = probability * float(read.chances[depth, token])
            left.append(_Branch(-reached, rows[following == token], depth + 1, reached))
        return left

    def _mask(self, branch: _Branch) -> Allowed:
        """The beginning is fixed; after it, each step may say what some word of the branch has there."""
        network, charset = self._spec.network, self._spec.charset
        mask = np.full((network.max_length, charset.class_count), FORBIDDEN, np.float32)
        mask[:, charset.end_id] = 0  # after the longest word
        for depth, column in enumerate(self._table[branch.rows].T):
            mask[depth, charset.end_id] = FORBIDDEN
            mask[depth, np.unique(column)] = 0
        return mask

    def _score(self, row: int, run: Run) -> tuple[float, list[int]]:
        """One word's own probability."""
        ids = self._ids(row)
        read = run(self._mask(_Branch(0, np.array([row]), 0, 1.0)))
        return float(np.prod(np.asarray(read.scores[: len(ids) + 1], np.float64))), ids

    def _ids(self, row: int) -> list[int]:
        ids: list[int] = self._table[row].tolist()
        return ids[: ids.index(self._spec.charset.end_id)]
