"""Vocabulary: the strings that a recogniser is trained to read."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from robustscanner.spec import DICT90

DEFAULT_CHARACTERS = DICT90
FUNCTION_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "at",
    "is",
    "on",
    "by",
    "for",
    "with",
    "from",
    "be",
    "this",
    "that",
    "it",
    "as",
    "an",
    "or",
    "are",
    "your",
    "you",
    "we",
    "our",
    "all",
    "no",
    "not",
    "if",
    "so",
    "do",
    "go",
    "up",
    "out",
    "off",
    "my",
    "me",
    "us",
    "he",
    "she",
    "his",
    "her",
    "was",
    "has",
    "have",
    "can",
    "will",
    "new",
    "now",
    "one",
    "two",
    "open",
    "free",
    "sale",
    "st",
    "rd",
    "ave",
    "road",
    "street",
]
TOP_LEVELS = ("com", "org", "net", "co.uk", "de", "info", "edu", "in")
# How often real crops (IIIT5K, ICDAR15, SVT training parts) have 2, 3, 4, ... characters.
LENGTH_WEIGHTS = (0, 0, 7, 14, 18, 16, 13, 11, 8, 5, 3.5, 2, 1.2, 0.7, 0.5, 0.3)
RARE_LENGTH_WEIGHT = 0.05
# As most issuers of codes do, without the letters that many fonts draw like a digit.
CODE_LETTERS = "".join(c for c in string.ascii_uppercase if c not in "IO")
CODE_SIGNS = string.digits + CODE_LETTERS


@dataclass(frozen=True)
class TextMix:
    """Shares of the kinds of text; need not sum to 1."""

    word: float = 0.51  # a word of the list
    function_word: float = 0.04  # the, of, sale, ...
    single: float = 0.03  # one letter or digit
    number: float = 0.06  # counts, prices, dates, times, telephone numbers, per cent
    amount: float = 0.05  # prices and readings with comma and point, where nothing else tells them apart
    code: float = 0.04  # number plates, room numbers, product codes
    long_code: float = 0.10  # 4 to 20 digits, capitals or both, in groups or not
    repeats: float = 0.07  # runs of one digit or letter, which attention likes to skip or to say twice
    punctuated: float = 0.055  # a word with marks or joined to another
    address: float = 0.01  # e-mail and web addresses
    random: float = 0.035  # any characters at all


CONTEXTLESS = TextMix(
    **dict.fromkeys(("word", "function_word", "single", "punctuated", "address", "random"), 0.0),
    number=0.1,
    amount=0.15,
    code=0.15,
    long_code=0.45,
    repeats=0.15,
)  # texts that nobody can guess


@dataclass(frozen=True)
class CaseMix:
    """Shares of the letter cases; need not sum to 1."""

    upper: float = 0.48  # as on most signs
    title: float = 0.26  # first letter upper
    lower: float = 0.22  # all lower
    as_given: float = 0.02  # what the list says
    mixed: float = 0.02  # each letter by chance, as in logos


class Vocabulary:
    """Draws strings of the given characters."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        characters: str = DEFAULT_CHARACTERS,
        mix: TextMix = TextMix(),
        cases: CaseMix = CaseMix(),
        max_length: int = 25,
    ) -> None:
        """Group the words by length; words are cleaned of characters outside `characters`."""
        if not characters:
            raise ValueError("the character set is empty: pass the characters that the model can output")
        self._characters = characters
        self._allowed = frozenset(characters)
        self._max_length = max_length
        self._by_length = self._group(words)
        self._lengths = sorted(self._by_length)
        self._length_bounds = _cumulative([_length_weight(n) for n in self._lengths])
        self._kinds = [f.name for f in fields(mix)]
        self._kind_bounds = _cumulative([getattr(mix, k) for k in self._kinds])
        self._cases = [f.name for f in fields(cases)]
        self._case_bounds = _cumulative([getattr(cases, c) for c in self._cases])

    def sample(self, rng: np.random.Generator) -> str:
        """One string of 1..max_length characters of the set."""
        kind = self._kinds[_draw(self._kind_bounds, rng)]
        make: Callable[[np.random.Generator], str] = getattr(self, f"_{kind}")
        return self._fit(make(rng)) or self._random(rng)

    def _group(self, words: Sequence[str]) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = {}
        for word in words:
            clean = self._fit(word.strip())
            if clean:
                groups.setdefault(len(clean), []).append(clean)
        if not groups:  # no list, or nothing of it in the set
            groups[1] = list(self._characters)
        return groups

    def _fit(self, text: str) -> str:
        """Keep what the set has, in the other case if need be."""
        kept = (next((v for v in (c, c.lower(), c.upper()) if v in self._allowed), "") for c in text)
        return "".join(kept)[: self._max_length]

    def _plain_word(self, rng: np.random.Generator) -> str:
        group = self._by_length[self._lengths[_draw(self._length_bounds, rng)]]
        return group[int(rng.integers(len(group)))]

    def _cased(self, text: str, rng: np.random.Generator) -> str:
        case = self._cases[_draw(self._case_bounds, rng)]
        if case == "mixed":
            return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)
        return {"upper": text.upper(), "lower": text.lower(), "title": text.capitalize()}.get(case, text)

    def _word(self, rng: np.random.Generator) -> str:
        return self._cased(self._plain_word(rng), rng)

    def _function_word(self, rng: np.random.Generator) -> str:
        return self._cased(FUNCTION_WORDS[int(rng.integers(len(FUNCTION_WORDS)))], rng)

    def _single(self, rng: np.random.Generator) -> str:
        pool = string.digits if rng.random() < 0.3 else string.ascii_letters
        return pool[int(rng.integers(len(pool)))]

    def _number(self, rng: np.random.Generator) -> str:
        style = int(rng.integers(12))
        a, b, c = (int(v) for v in rng.integers(0, 100, 3))
        texts = {
            0: f"${a}.{b:02d}",
            1: f"{a}.{b:02d}",
            2: f"{a}%",
            3: f"{a % 24}:{b % 60:02d}" + ("", "am", "pm", "AM", "PM")[c % 5],
            4: f"{a % 31 + 1}{'/-.'[b % 3]}{b % 12 + 1}{'/-.'[b % 3]}{(2000 + c % 30) if c % 2 else f'{c:02d}'}",
            5: f"{_digits(3, rng)}-{_digits(4, rng)}",
            6: f"{1900 + a + b // 4}",
            7: f"{a % 20}{('am', 'pm', 'AM', 'PM', 'th', 'km', 'kg', 'ml', 'x', '+')[b % 10]}",
        }
        return texts.get(style) or _digits(int(rng.integers(1, 5 if style < 11 else 11)), rng)

    def _code(self, rng: np.random.Generator) -> str:
        head = "".join(CODE_LETTERS[int(i)] for i in rng.integers(len(CODE_LETTERS), size=int(rng.integers(1, 4))))
        tail = _digits(int(rng.integers(1, 5)), rng)
        joint = ("", "", "-", ".")[int(rng.integers(4))]
        if rng.random() < 0.3:
            pool = CODE_SIGNS
            return "".join(pool[int(i)] for i in rng.integers(len(pool), size=int(rng.integers(3, 9))))
        return head + joint + tail if rng.random() < 0.75 else tail + joint + head

    def _amount(self, rng: np.random.Generator) -> str:
        whole, cents = int(10 ** rng.uniform(0, 6)), int(rng.integers(100))
        thousands, decimal = ((",", "."), (".", ","), ("", "."), ("", ","))[int(rng.integers(4))]
        grouped = f"{whole:,}".replace(",", thousands)
        text = grouped if thousands and rng.random() < 0.35 else f"{grouped}{decimal}{cents:02d}"
        sign = ("", "", "", "$", "-", "+")[int(rng.integers(6))]
        return sign + text

    def _long_code(self, rng: np.random.Generator) -> str:
        pool = (string.digits, string.digits, CODE_SIGNS)[int(rng.integers(3))]
        count = int(rng.integers(4, 21))
        text = "".join(pool[int(i)] for i in rng.integers(len(pool), size=count))
        if rng.random() < 0.75:
            return text
        mark, size = "-./"[int(rng.integers(3))], int(rng.integers(2, 6))
        return mark.join(text[i : i + size] for i in range(0, count, size))[:20].rstrip(mark)

    def _repeats(self, rng: np.random.Generator) -> str:
        pool = string.digits if rng.random() < 0.7 else CODE_LETTERS
        runs = [
            pool[int(rng.integers(len(pool)))] * min(int(rng.geometric(0.35)), 7) for _ in range(rng.integers(1, 5))
        ]
        return "".join(runs)

    def _punctuated(self, rng: np.random.Generator) -> str:
        word = self._word(rng)
        other = self._cased(self._plain_word(rng), rng)
        forms = (
            *(f"{word}{mark}" for mark in ".,.,!!?:;:"),
            *(word + ("'S" if word.isupper() else "'s"),) * 4,
            *(f"{word}...", f'"{word}"', f"'{word}'", f"({word})", f"{word[:1]}.{other[:1]}.", f"{word[:1]}."),
            *(f"{word}-{other}", f"{word}-{other}", f"{word}&{other}", f"{word}/{other}", f"{word}.{other}", "&"),
            *(
                f"@{word}",
                f"#{word}",
                f'"{word}',
                f'{word}"',
                f"({word}",
                f"{word})",
                f"*{word}",
                f"-{word}",
                f"{word}*",
            ),
        )
        return forms[int(rng.integers(len(forms)))]

    def _address(self, rng: np.random.Generator) -> str:
        name, host = self._plain_word(rng).lower(), self._plain_word(rng).lower()
        level = TOP_LEVELS[int(rng.integers(len(TOP_LEVELS)))]
        text = (f"www.{name}.{level}", f"{name}.{level}", f"{name}@{host}.{level}")[int(rng.integers(3))]
        return text.upper() if rng.random() < 0.15 else text

    def _random(self, rng: np.random.Generator) -> str:
        count = 1 + int(rng.integers(0, min(8, self._max_length)))
        return "".join(self._characters[int(i)] for i in rng.integers(len(self._characters), size=count))


def _length_weight(length: int) -> float:
    return LENGTH_WEIGHTS[length] if 2 <= length < len(LENGTH_WEIGHTS) else RARE_LENGTH_WEIGHT


def _cumulative(weights: Sequence[float]) -> np.ndarray:
    return np.cumsum(np.asarray(weights, np.float64)) / max(sum(weights), 1e-9)


def _draw(bounds: np.ndarray, rng: np.random.Generator) -> int:
    return min(int(np.searchsorted(bounds, rng.random(), side="right")), len(bounds) - 1)


def _digits(count: int, rng: np.random.Generator) -> str:
    return "".join(string.digits[int(i)] for i in rng.integers(10, size=count))
