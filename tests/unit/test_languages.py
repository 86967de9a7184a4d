"""In which language is a person spoken to? By the examples of the standards and by what browsers send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.languages import LANGUAGES, spoken_to


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("da, en-gb;q=0.8, en;q=0.7", "en"),  # RFC 9110, 12.5.4
        ("zh-Hant-CN-x-private1-private2", "zh-Hant"),  # RFC 4647, 3.4
        ("de-CH-1996", "de"),  # RFC 4647, 2.2
        ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "fr"),
        ("pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7", "pt"),
        ("en;q=0.2, ja;q=0.9, de;q=0.5", "ja"),
        ("en;q=0.5,ja", "ja"),
        ("de, ja", "de"),
        ("de;q=0.7, ja;q=0.7", "de"),
        ("sw, ko;q=0.001", "ko"),
        ("JA-jp", "ja"),
        ("ja ; Q=0.9 , de\t;\tq=1.000", "de"),
        ("in-ID", "id"),
        # the likely scripts of CLDR
        ("zh", "zh-Hans"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("zh-SG", "zh-Hans"),
        ("zh-TW,zh;q=0.9,en-US;q=0.8,en;q=0.7", "zh-Hant"),
        ("zh-HK,zh-Hant;q=0.9", "zh-Hant"),
        ("zh-MO", "zh-Hant"),
        ("zh-Hans-HK", "zh-Hans"),
        ("zh-Hant", "zh-Hant"),
        ("yue-HK", "zh-Hant"),
    ],
)
def test_it_is_the_first_of_ours_that_the_browser_asks_for(accepted: str, language: str) -> None:
    assert spoken_to(accepted, ["th"]) == language


@pytest.mark.parametrize(
    "accepted",
    ["", "*", "sw", "ja;q=0", "ja;q=0.000", "*;q=0.5", "ja;q=2", "ja;q=0.9999", "ja;level=1", "日本語", ",;,"],
)
def test_who_asks_for_none_of_ours_is_spoken_to_as_is_known_of_them(accepted: str) -> None:
    assert spoken_to(accepted, ["sw", "ko-KR", "de"]) == "ko"
    assert spoken_to(accepted, ["zh-TW"]) == "zh-Hant"
    assert spoken_to(accepted) == "en"


@given(st.text() | st.lists(st.sampled_from([*LANGUAGES, "*", ";q=", "0.5", "-", " ", "zh", "TW"])).map(",".join))
def test_whatever_is_sent_it_is_one_of_ours(accepted: str) -> None:
    assert spoken_to(accepted, [accepted]) in LANGUAGES


@given(st.sampled_from(LANGUAGES), st.sampled_from(["", "-x-y", "-1996"]), st.sampled_from([str, str.lower, str.upper]))
def test_each_of_ours_is_found_however_it_is_spelt(language: str, more: str, spelt: type[str]) -> None:
    assert spoken_to(spelt(language + more)) == language
    assert spoken_to("", [spelt(language + more)]) == language
