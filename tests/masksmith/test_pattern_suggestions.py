"""Misspelled patterns are refused with the pattern that they are like."""

import pytest

import masksmith as ms


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("transposabel 8:16", "transposable 8:16"),
        ("Transposible <=2:4", "transposable <=2:4"),
        ("blok 32x32 50%", "block 32x32 50%"),
        ("block 4x4 50% balanse row", "block 4x4 50% balance rows"),
        ("hybird 128x128 2:4 75%", "hybrid 128x128 2:4 75%"),
        ("hybrid 4x4 2;4 75%", "2:4"),
        ("chanels out 50%", "channels out 50%"),
        ("2;4", "2:4"),
        ("transposable 2,4", "transposable 2:4"),
    ],
)
def test_what_is_meant_is_suggested(text: str, meant: str) -> None:
    with pytest.raises(ms.PatternError, match=f"is not a pattern; did you mean '{meant}'\\?"):
        ms.parse(text)


@pytest.mark.parametrize("text", ["0.5", "half", "x 8:16", "2:", "50", "block", "1,5%"])
def test_what_is_like_no_pattern_gets_the_list(text: str) -> None:
    with pytest.raises(ms.PatternError, match="write n:m with n kept"):
        ms.parse(text)
