"""The command line of every program: options, presets, and errors in one line."""
