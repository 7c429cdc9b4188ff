"""An experiment as a program: presets, errors in one line, exit status 1 if a claim fails."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from experiments.command_line.errors import exit_on_user_error
from experiments.command_line.options import ProgramSettings, choose_settings, shell_command
from experiments.reports.claims import Claim, print_claims


def run_program[Settings: ProgramSettings](
    experiment: str,
    description: str,
    presets: Mapping[str, Settings],
    run: Callable[[Settings, str, Console], Sequence[Claim]],
    arguments: Sequence[str],
) -> int:
    """Runs an experiment with the settings of the command line and prints its claims.

    Args:
      experiment: the module's name in `experiments`.
      description: for `--help`.
      presets: settings by name. The first is the default, and only its claims must hold.
      run: maps settings, the shell command and a console to the claims.
      arguments: those of the command line.

    Returns:
      The exit status: 1 if a claim of the default preset fails, else 0.

    Raises:
      SystemExit: an option is unknown, or the run raised an error that a user can correct.
    """
    settings = choose_settings(experiment, description, presets, arguments)
    console = Console(highlight=False)
    with exit_on_user_error():
        claims = run(settings, shell_command(experiment, arguments), console)
    print_claims(console, claims, settings.preset)
    must_hold = settings.preset == next(iter(presets))
    return int(must_hold and not all(claim.holds for claim in claims))
