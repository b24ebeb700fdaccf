"""Tables of labels as editors, spreadsheets and other tools write them."""

import unicodedata
from pathlib import Path

import pytest

from robustscanner.charset import Charset
from robustscanner.labels import DataError, read_labels, tidy_label
from robustscanner.spec import DICT90, CharsetSpec

ROWS = [("0.jpg", "EXIT"), ("img/1.jpg", "Bakery")]
DICT90_CHARSET = Charset(CharsetSpec.of(DICT90))


def table(text: str, *, tab: str = "\t", end: str = "\n") -> str:
    """Two rows in some other tool's hand; `text` has {path} and {label}."""
    return "".join(text.format(path=path, label=label).replace("\t", tab) + end for path, label in ROWS)


@pytest.mark.parametrize(
    "written",
    [
        table("{path}\t{label}"),
        table("{path}\t{label}").rstrip("\n"),
        table("{path}\t{label}", end="\r\n"),
        table("{path}\t{label}", end="\r"),
        table("{path}\t{label}", end="\n\n"),
        "\ufeff" + table("{path}\t{label}"),
        table("{path}\t{label}\t"),
        table("{path}\t {label} "),
        table("{path}\t{label}", tab="\t\t"),
        table("{path}\t{label}\t0.9812"),  # as recognize.py prints it
        table("{path}\t{label}\t1e-05"),
        table("./{path}\t{label}"),
        table('"{path}"\t"{label}"'),
        table("{path}\t{label}").replace("/", "\\"),
        table("{path}\t{label}\u200b"),
        table("{path}\t\ufeff{label}\u00a0"),
    ],
)
def test_tables(tmp_path: Path, written: str) -> None:
    for path, _ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "labels.tsv").write_bytes(written.encode())
    assert [(crop.path, crop.label) for crop in read_labels(tmp_path)] == [(tmp_path / p, w) for p, w in ROWS]


def test_readings_as_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`recognize.py crops > crops/labels.tsv`: paths as seen from where it ran."""
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "0.jpg").touch()
    (tmp_path / "crops" / "labels.tsv").write_text("crops/0.jpg\tEXIT\t0.9971\n")
    monkeypatch.chdir(tmp_path)
    crop = read_labels(tmp_path / "crops")[0]
    assert (crop.path.exists(), crop.label) == (True, "EXIT")


@pytest.mark.parametrize("written", ["0.jpg\t\t0.0312\n", "0.jpg\t \n", "0.jpg\t\u200b\n"])
def test_empty_labels(tmp_path: Path, written: str) -> None:
    """Above all, a score is no label where nothing was read."""
    (tmp_path / "labels.tsv").write_text(written)
    assert [crop.label for crop in read_labels(tmp_path)] == [""]


def test_a_backslash_may_be_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a\\b.jpg").touch()
    (tmp_path / "labels.tsv").write_text("a\\b.jpg\tEXIT\n")
    assert read_labels(tmp_path)[0].path == tmp_path / "a\\b.jpg"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("0.jpg\t\n", "line 1 has no label"),
        ("0.jpg EXIT\n", "line 1 has no label; write path<TAB>label"),
        ("0.jpg\tNO\tENTRY\n", "line 1 has 3 columns"),
        ("0.jpg\tEXIT\t0.9\t1\n", "line 1 has 4 columns"),
        ("\n \n", "is empty"),
    ],
)
def test_what_is_no_table(tmp_path: Path, written: str, says: str) -> None:
    (tmp_path / "labels.tsv").write_text(written)
    with pytest.raises(DataError, match=says):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("label", "tidy"),
    [
        (unicodedata.normalize("NFD", "Café"), "Café"),
        ("NO\u00a0ENTRY", "NO ENTRY"),
        ("NO  ENTRY", "NO  ENTRY"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # Persian needs its zero-width non-joiner
        ("Joe’s ﬁnd ＥＸＩＴ", "Joe’s ﬁnd ＥＸＩＴ"),  # a model may know these
    ],
)
def test_tidy(label: str, tidy: str) -> None:
    assert tidy_label(label) == tidy


@pytest.mark.parametrize(
    ("label", "fitted", "missing"),
    [
        ("Joe’s", "Joe's", ""),
        ("“NEW”–", '"NEW"-', ""),
        ("ﬁnd", "find", ""),
        ("ＥＸＩＴ", "EXIT", ""),
        ("NO ENTRY", "NOENTRY", ""),
        ("wait…", "wait...", ""),
        ("Café", "Café", "é"),
        ("5€½", "5€½", "€½"),
        ("m²", "m²", "²"),  # a 2 would say something else
    ],
)
def test_labels_fit_the_charset(label: str, fitted: str, missing: str) -> None:
    assert DICT90_CHARSET.fit(label) == fitted
    assert DICT90_CHARSET.missing(fitted) == missing


def test_what_a_charset_has_stays() -> None:
    charset = Charset(CharsetSpec.of("abc’ﬁＥ é"))
    assert charset.fit("a’ﬁＥ É B") == "a’ﬁＥ é b"
