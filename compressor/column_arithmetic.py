"""Generated reasoning traces: sums, differences and products worked out column by column."""

from collections.abc import Iterator
from itertools import count

import numpy as np

from plugins.lm.corpora import Document, register_corpus

PLACES = ("ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands", "millions")


@register_corpus("column_arithmetic")
def column_arithmetic(seed: int = 0) -> Iterator[Document]:
    """Questions on numbers of 3 to 7 digits, the way to the answer between <think> and </think>,
    and the answer; without end. 200 to 600 characters each, ASCII."""
    rng = np.random.default_rng(seed)
    for i in count():
        sign = ("+", "-", "x")[rng.integers(3)]
        widths = rng.integers(3, len(PLACES) + 1, 2)
        b, a = sorted(rng.integers(10 ** (widths - 1), 10**widths))
        if sign == "x":
            b = rng.integers(2, 10)
        yield Document(f"{seed}-{i}", derivation(int(a), sign, int(b)))


def derivation(a: int, sign: str, b: int) -> str:
    """The text for a + b, a - b (a >= b) or a x b (b one digit); b has no more digits than a."""
    top = [int(digit) for digit in reversed(str(a))]
    bottom = [int(digit) for digit in reversed(str(b).zfill(len(top)))]
    if sign == "x":
        bottom = [b] * len(top)
    lines, written, carry = [], "", 0
    kept = "borrow" if sign == "-" else "carry"
    for place, x, y in zip(PLACES, top, bottom, strict=False):  # as many places as digits
        total = {"+": x + y + carry, "-": x - y - carry, "x": x * y + carry}[sign]
        line = f"{place}: {x} {sign} {y}"
        if carry:
            line += f" {'-' if sign == '-' else '+'} {carry}"
        line += f" = {total}"
        if total < 0:
            line += f", plus 10 is {total + 10}"
        carry, digit = abs(total // 10), total % 10
        written = f"{digit}{written}"
        lines.append(f"{line}, write {digit}, {kept} {carry}")
    if carry:
        written = f"{carry}{written}"
        lines.append(f"left: write {carry}")
    answer = int(written)
    steps = "\n".join(lines)
    return (
        f"Question: what is {a} {sign} {b}?\n"
        f"<think>\nColumn by column, from the right.\n{steps}\n"
        f"The digits are {written}, so the result is {answer}.\n</think>\n"
        f"Answer: {answer}\n"
    )
