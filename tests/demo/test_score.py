"""Scores of served texts, and files that cannot be scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell.demo.score import DataError, human, lines, read, score

FOX = "name[The Fox], eatType[pub]"
OWL = "name[The Owl], area[riverside]"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "texts.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_texts_of_an_input_come_together(tmp_path: Path) -> None:
    path = written(
        tmp_path, f'mr,ref\n"{FOX}",The Fox is a pub.\n"{OWL}",By the river: The Owl.\n"{FOX}",A pub: The Fox.\n'
    )
    assert read(path) == {FOX: ["The Fox is a pub.", "A pub: The Fox."], OWL: ["By the river: The Owl."]}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", r":1: the columns \['mr', 'ref'\] are missing \(found: none\)"),
        ("facts,ref\na,b\n", r":1: the columns \['mr'\] are missing \(found: facts, ref\)"),
        ("mr,ref\n", "holds no rows"),
        (f'mr,ref\n"{FOX}",A pub.\n"{OWL}"\n', ":3: the text .* is missing"),
        (f'mr,ref\n"{FOX}",A pub.\nno facts,Text.\n', ":3: no facts in 'no facts'"),
        (b"mr,ref\n\xff\xfe,x\n", "not a CSV file in UTF-8"),
        (f'mr,ref\n"{FOX}",A pub.\n"{OWL}","open', "not a CSV file"),
    ],
)
def test_a_bad_file_is_said_with_its_line(tmp_path: Path, text: str | bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"texts\.csv.*{what}"):
        read(written(tmp_path, text))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file"):
        read(tmp_path / "none.csv")


def test_a_human_text_scores_full_and_a_wrong_one_does_not() -> None:
    texts = {
        FOX: ["The Fox is a pub.", "A pub called The Fox."],
        OWL: ["The Owl is by the river.", "Find The Owl riverside."],
    }
    best = score({mr: said[0] for mr, said in texts.items()}, texts)
    assert best.bleu == pytest.approx(100)
    assert (best.slot_errors, best.slot_errors_apart) == (0, 0)
    assert "tok:13a" in best.signature
    assert "case:lc" in best.signature
    worse = score({FOX: "The Fox is a coffee shop.", OWL: texts[OWL][0]}, texts)
    assert worse.bleu < best.bleu
    assert (worse.slot_errors, worse.slot_errors_apart) == (0.25, 0.25)


def test_humans_are_scored_against_each_other() -> None:
    texts = {FOX: ["The Fox is a pub.", "The Fox is a pub."], OWL: ["Only one text."]}
    found = human(texts)
    assert found.bleu == pytest.approx(100)
    assert found.slot_errors == 0


def test_both_checkers_and_the_signature_are_printed() -> None:
    texts = {FOX: ["The Fox is a pub.", "A pub called The Fox."]}
    found = score({FOX: texts[FOX][0]}, texts)
    printed = "\n".join(lines(found, human(texts)))
    assert "slots.py" in printed
    assert "slots_apart.py" in printed
    assert found.signature in printed
