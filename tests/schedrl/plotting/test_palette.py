from schedrl.plotting.palette import OKABE_ITO, colour, ink_on


def test_the_first_seven_are_okabe_and_ito_and_42_are_distinct() -> None:
    assert tuple(colour(k) for k in range(7)) == OKABE_ITO
    assert len({colour(k) for k in range(42)}) == 42
    assert colour(42) == colour(0)


def test_tints_mix_with_white_and_shades_with_black() -> None:
    assert colour(7) == "#80B8D8"  # halfway from #0072B2 to white
    assert colour(14) == "#004A74"  # 35 % of the way to black


def test_ink_is_readable() -> None:
    assert ink_on("#FFFFFF") == ink_on("#F0E442") == "#000000"
    assert ink_on("#000000") == ink_on("#0072B2") == "#FFFFFF"
