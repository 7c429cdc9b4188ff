"""A claim of an experiment, the measured value, and whether the claim holds."""

import dataclasses
from collections.abc import Sequence

from rich.console import Console


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, the value that was measured for it, and whether it holds."""

    says: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.says}: {self.measured}"

    def markdown(self) -> str:
        """The same as an item of a list."""
        return f"- **{'PASS' if self.holds else 'FAIL'}** {self.says}: {self.measured}"


def claims_note(preset: str) -> str:
    """A sentence for a page of the smoke preset; empty for other presets."""
    if preset != "smoke":
        return ""
    return (
        "This is a test run: the preset smoke only tests the program. Its numbers mean nothing, "
        "and its claims are not meant to hold."
    )


def print_claims(console: Console, claims: Sequence[Claim], preset: str = "") -> None:
    """One line a claim, PASS or FAIL first; after those of the smoke preset, a note."""
    for claim in claims:
        style = "green" if claim.holds else "bold red"
        console.print(str(claim), style=style, markup=False, highlight=False, soft_wrap=True)
    if claims and (note := claims_note(preset)):
        console.print(note, style="yellow", soft_wrap=True)
