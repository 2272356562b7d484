"""The scores of a study, on windows short enough to count by hand."""

from __future__ import annotations

import re
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphclone.study.scores import Counts, Tally, scores

PERFECT = {"accuracy": 1.0, "brackets": 1.0, "indentation": 1.0, "identifiers": 1.0}


def _tokens(*windows: str) -> torch.Tensor:
    return torch.tensor([list(window.encode()) for window in windows])


def _count(window: str, guesses: dict[int, str] | None = None) -> Counts:
    """The scores of one window whose every token is predicted, but for the guesses at these positions."""
    tokens = _tokens(window)
    predicted = tokens[:, 1:].clone()
    for position, guess in (guesses or {}).items():
        predicted[0, position - 1] = ord(guess)
    return scores(tokens, predicted, text=True)


# Tokens and brackets.


def test_accuracy_is_over_all_predicted_tokens() -> None:
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    counts = scores(tokens, torch.tensor([[2, 9], [5, 6]]), text=False)
    assert counts == Counts(Tally(3, 4))


def test_other_tokens_than_text_have_accuracy_alone() -> None:
    tokens = _tokens("\n  name) name)")
    rates = scores(tokens, tokens[:, 1:], text=False).rates()
    assert rates == {"accuracy": 1.0, "brackets": None, "indentation": None, "identifiers": None}


def test_tokens_beyond_bytes_count_as_wrong_and_as_no_character() -> None:
    tokens = _tokens("-name name.")
    predicted = tokens[:, 1:].clone()
    predicted[0, 9] = 300  # after the last character: neither right nor one that prolongs the name
    assert scores(tokens, predicted, text=True) == Counts(Tally(9, 10), identifiers=Tally(1, 1))
    predicted[0, 7] = 256 + ord("m")
    assert scores(tokens, predicted, text=True).identifiers == Tally(0, 1)


def test_closing_brackets_are_counted() -> None:
    assert _count("([{}])").brackets == Tally(3, 3)
    assert _count("([{}])", {4: ")"}).brackets == Tally(2, 3)
    assert _count("([{}])", {2: "x", 1: ")"}).brackets == Tally(3, 3)  # opening ones are not


def test_a_bracket_that_begins_the_window_is_not_predicted() -> None:
    assert _count(")a").brackets == Tally(0, 0)


# Indentation: "a:\n  b" has its newline at 2, spaces at 3 and 4, and b at 5.


def test_an_indentation_is_right_in_every_character_and_in_its_end() -> None:
    window = "a:\n  b\n"
    assert _count(window).indentation == Tally(1, 1)
    assert _count(window, {5: "c"}).indentation == Tally(1, 1)  # what follows need not be known
    assert _count(window, {2: "x"}).indentation == Tally(1, 1)
    assert _count(window, {3: "x"}).indentation == Tally(0, 1)
    assert _count(window, {4: "x"}).indentation == Tally(0, 1)
    assert _count(window, {4: "\t"}).indentation == Tally(0, 1)
    assert _count(window, {5: " "}).indentation == Tally(0, 1)
    assert _count(window, {5: "\t"}).indentation == Tally(0, 1)


def test_no_indentation_is_one_too() -> None:
    assert _count("a\nb").indentation == Tally(1, 1)
    assert _count("a\nb", {2: "c"}).indentation == Tally(1, 1)
    assert _count("a\nb", {2: " "}).indentation == Tally(0, 1)


def test_tabs_indent() -> None:
    assert _count("a\n\t b").indentation == Tally(1, 1)
    assert _count("a\n\t b", {3: "\t"}).indentation == Tally(0, 1)


@pytest.mark.parametrize(
    "window",
    [
        "  a = b",  # no newline tells that a line begins
        "a\n  ",  # cut off by the end of the window
        "a\n",
        "a\n  \n",  # blank
        "a\n\r\n",
        "a\n\f\n",
        "a\n\0",  # the document ends
        "a\n \n\n",
    ],
)
def test_lines_that_do_not_count(window: str) -> None:
    assert _count(window).indentation == Tally(0, 0)


def test_a_line_that_begins_with_the_window_counts() -> None:
    assert _count("\n b").indentation == Tally(1, 1)
    assert _count("\n b", {1: "b"}).indentation == Tally(0, 1)


def test_blank_lines_between_do_not_matter() -> None:
    assert _count("a\n \n\n  b", {2: "x", 3: "x", 4: "x"}).indentation == Tally(1, 1)


# Identifiers: "one one " has its second name at 4 to 6, and what ends it at 7.


def test_an_identifier_is_right_after_its_first_character_and_in_its_end() -> None:
    window = "-one one."
    assert _count(window).identifiers == Tally(1, 1)
    assert _count(window, {5: "x"}).identifiers == Tally(1, 1)  # which name comes need not be known
    assert _count(window, {2: "x", 3: "x", 4: "x"}).identifiers == Tally(1, 1)  # nor the first time
    assert _count(window, {6: "x"}).identifiers == Tally(0, 1)
    assert _count(window, {7: "x"}).identifiers == Tally(0, 1)
    assert _count(window, {8: "("}).identifiers == Tally(1, 1)


@pytest.mark.parametrize("more", "sS_9")
def test_an_identifier_that_would_go_on_is_wrong(more: str) -> None:
    assert _count("-one one.", {8: more}).identifiers == Tally(0, 1)


def test_every_time_again_counts() -> None:
    assert _count("-one one one two two.", {6: "x"}).identifiers == Tally(2, 3)


@pytest.mark.parametrize(
    "window",
    [
        "-one two ones bone one_ one2.",  # others
        "-on on.",  # too short
        "-for for while while None None.",  # keywords
        "-one one",  # cut off by the end of the window
        "one -one.",  # the first may be the end of a longer one
        "-one 123 123 9one 0xone.",  # numbers, and what follows them
        "-one One ONE.",
    ],
)
def test_identifiers_that_do_not_count(window: str) -> None:
    assert _count(window).identifiers == Tally(0, 0)


def test_a_name_cut_by_the_start_of_the_window_is_not_counted_but_later_ones_are() -> None:
    assert _count("one one one.").identifiers == Tally(1, 1)


def test_every_kind_of_character_makes_an_identifier() -> None:
    name = "_" + string.ascii_letters + string.digits
    assert _count(f"-{name} {name}.").identifiers == Tally(1, 1)


def test_windows_know_nothing_of_each_other() -> None:
    tokens = _tokens("-one two\n", "-one two.")
    assert scores(tokens, tokens[:, 1:], text=True) == Counts(Tally(16, 16))


# Sums.


def test_counts_add_up() -> None:
    one = Counts(Tally(1, 2), Tally(3, 4), Tally(5, 6), Tally(7, 8))
    other = Counts(Tally(10, 20), Tally(30, 40), Tally(50, 60), Tally(70, 80))
    assert one + other == Counts(Tally(11, 22), Tally(33, 44), Tally(55, 66), Tally(77, 88))
    assert sum([one, other], Counts()) == one + other


def test_counts_travel_as_a_tensor() -> None:
    counts = Counts(Tally(1, 2), Tally(3, 4), Tally(5, 6), Tally(2**53 + 1, 2**60))
    assert counts.as_tensor().tolist() == [1, 2, 3, 4, 5, 6, 2**53 + 1, 2**60]
    assert counts.as_tensor().dtype == torch.int64
    assert Counts.from_tensor(counts.as_tensor()) == counts


def test_sums_in_floating_point_are_whole_numbers_again() -> None:
    counts = Counts.from_tensor(torch.arange(8, dtype=torch.float64))
    assert counts.as_tensor().tolist() == list(range(8))
    assert counts.as_tensor().dtype == torch.int64


def test_rates_are_shares_and_none_where_nothing_was_counted() -> None:
    rates = Counts(Tally(1, 4), Tally(0, 2), Tally(3, 3)).rates()
    assert rates == {"accuracy": 0.25, "brackets": 0.0, "indentation": 1.0, "identifiers": None}
    assert Counts().rates() == dict.fromkeys(rates)


# Against a definition that is slow and plain.

_TEXT = st.text(alphabet="ab_1 \t\n)]\0.", min_size=24, max_size=24)


def _plain(tokens: str, predicted: str) -> Counts:
    """One window, character by character; predicted has a character in front that nobody predicted."""
    right = [a == b for a, b in zip(tokens, predicted, strict=True)]
    lines, names, seen = [], [], set()
    for newline in re.finditer("\n", tokens):
        stop = newline.end()
        while stop < len(tokens) and tokens[stop] in " \t":
            stop += 1
        if stop < len(tokens) and tokens[stop] not in "\n\0":
            lines.append(all(right[newline.end() : stop]) and predicted[stop] not in " \t")
    for name in re.finditer(r"\w+", tokens, re.ASCII):
        start, stop = name.span()
        if start and stop < len(tokens) and not name[0][0].isdigit() and len(name[0]) > 2:
            if name[0] in seen:
                names.append(all(right[start + 1 : stop]) and not re.match(r"\w", predicted[stop], re.ASCII))
            seen.add(name[0])
    closing = [hit for hit, character in zip(right[1:], tokens[1:], strict=True) if character in ")]}"]
    return Counts(*(Tally(sum(hits), len(hits)) for hits in (right[1:], closing, lines, names)))


@given(st.lists(st.tuples(_TEXT, _TEXT, st.sets(st.integers(1, 23), max_size=4)), min_size=1, max_size=4))
def test_the_scores_are_those_of_the_plain_definition(windows: list[tuple[str, str, set[int]]]) -> None:
    true = [text for text, _, _ in windows]
    guessed = [
        "".join(wrong[at] if at in places else right for at, right in enumerate(text))
        for text, wrong, places in windows
    ]
    expected = sum(map(_plain, true, guessed), Counts())
    assert scores(_tokens(*true), _tokens(*guessed)[:, 1:], text=True) == expected


@given(st.lists(st.sampled_from(["aaa", "bbb", "  ", "\n", ")", "aaab"]), min_size=30, max_size=30))
def test_a_perfect_prediction_has_only_perfect_scores(words: list[str]) -> None:
    tokens = _tokens(".".join(words))
    rates = scores(tokens, tokens[:, 1:], text=True).rates()
    assert {name: rate for name, rate in rates.items() if rate is not None}.items() <= PERFECT.items()
    assert rates["accuracy"] == 1


@pytest.mark.parametrize("text", [True, False])
def test_no_windows_count_nothing(text: bool) -> None:
    assert scores(torch.empty(0, 9, dtype=torch.int64), torch.empty(0, 8, dtype=torch.int64), text) == Counts()
