"""`timm-dpa COMMAND`: the command line. A command imports what it needs when it runs, so that help appears at once."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from timm_dpa import register_models

from . import (
    ablate,
    app,
    cluster,
    convert,
    crops,
    data,
    demo,
    embed,
    eval,
    export,
    gallery,
    models,
    plot,
    publish,
    recipes,
    search,
    synth,
    train,
    zoo,
)
from .common import add_commands

__all__ = ['COMMANDS', 'main', 'make_parser']

_MODULES = (
    embed,
    search,
    gallery,
    cluster,
    app,
    models,
    export,
    data,
    crops,
    synth,
    train,
    recipes,
    eval,
    ablate,
    plot,
    publish,
    zoo,
    convert,
    demo,
)
COMMANDS = tuple(module.COMMAND for module in _MODULES)
#: errors that say what is wrong with the input; their exit status is that of wrong use
_WRONG_USE = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)
#: errors of the machine and of libraries that already speak to the user
_FAILURES = (RuntimeError, OSError, MemoryError, ArithmeticError, ImportError)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog='timm-dpa', description='Vehicle re-identification from drones.')
    parser.add_argument('--version', action=_Version, nargs=0, help='show the version and exit')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    add_commands(parser, COMMANDS, 'verb')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after `timm-dpa`; those of the process by default.

    Returns:
        The exit status: 0, 1 for a failure, 2 for wrong use, 130 after Ctrl-C.
    """
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (any(word.startswith('-') for word in rest) or not hasattr(args, 'settings')):
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    if rest:  # argparse leaves the settings that follow an option, where a positional argument comes first
        args.settings += rest
    _prepare_streams()
    try:
        register_models()
        args.command.run(args)
        print(end='', flush=True)  # a closed pipe or a full disk shows here
    except KeyboardInterrupt:
        advice = '; rerun the command to resume' if args.command.resumable else ''
        print(f'timm-dpa {args.verb}: interrupted{advice}', file=sys.stderr)
        return 130
    except BrokenPipeError:  # ... | head
        _discard_output()
        return 0
    except Exception as error:
        return _report(args, error)
    return 0


def _prepare_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names are any bytes
            stream.reconfigure(errors='surrogateescape' if stream.encoding == 'utf-8' else 'backslashreplace')
    logging.basicConfig(level=logging.WARNING, format='timm-dpa: %(message)s', stream=sys.stderr)
    hub_logger = logging.getLogger('huggingface_hub')
    hub_logger.propagate = False  # it prints by itself
    if 'HF_HUB_VERBOSITY' not in os.environ:
        hub_logger.setLevel(logging.ERROR)  # each attempt would be two lines; what matters ends as one, in an error


def _report(args: argparse.Namespace, error: Exception) -> int:
    """Print one line for an error, after its traceback with `--debug`; returns the exit status."""
    if args.debug:
        traceback.print_exc()
    line = ' '.join(str(error).split()) or type(error).__name__
    if not isinstance(error, (*_WRONG_USE, *_FAILURES)):
        line = f'unexpected {type(error).__name__}: {line[:500]}; --debug shows where'
    print(f'timm-dpa {args.verb}: {line}', file=sys.stderr)
    if isinstance(error, _WRONG_USE):
        return 2
    try:
        print(end='', flush=True)
    except OSError:
        _discard_output()
    return 1


def _discard_output() -> None:
    """Throw away what cannot be written; else Python complains of it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Version(argparse.Action):
    """Looks the version up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from timm_dpa import __version__

        print(f'timm-dpa {__version__}')
        parser.exit()
