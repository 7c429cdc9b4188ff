"""A small experiment as a program: presets, errors in one line, and claims that may fail."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from experiments.command_line.errors import mendable_errors
from experiments.command_line.options import choose_settings, shell_command
from experiments.reports.claims import Claim, print_claims


def run_program[Settings](
    experiment: str,
    description: str,
    presets: Mapping[str, Settings],
    run: Callable[[Settings, str, Console], Sequence[Claim]],
    arguments: Sequence[str],
) -> int:
    """Runs an experiment as the command line asks, prints its claims, and returns the exit status.

    Args:
      experiment: the module's name in `experiments`.
      description: what it asks, for `--help`.
      presets: settings by name. The first is the default, and the one whose claims must hold.
      run: settings, the command that was given, and a console, to what was found.
      arguments: of the command line.

    Returns:
      1 if a claim of the default preset fails, else 0.

    Raises:
      SystemExit: an option is unknown, or the run met an error that a user can mend.
    """
    preset, settings = choose_settings(experiment, description, presets, arguments)
    console = Console(highlight=False)
    with mendable_errors():
        claims = run(settings, shell_command(experiment, arguments), console)
    print_claims(console, claims)
    must_hold = preset == next(iter(presets))
    return int(must_hold and not all(claim.holds for claim in claims))
