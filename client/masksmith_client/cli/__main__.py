"""Run the command line by `python -m masksmith_client.cli`."""

from . import main

main()
