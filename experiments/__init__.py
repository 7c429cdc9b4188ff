"""Questions about attention, each a program: translate, grammar, length, lm, sort and generate.

A file imports from its own folder and from those that stand before it in this list:

    command_line/  options, presets, and errors in one line
    data/          texts and sentence pairs, tokenizers, and batches of ids
    systems/       the models that are compared, and text of Hugging Face checkpoints
    training/      training runs: settings, updates, checkpoints, devices
    measures/      outputs of trained systems, and what is measured of them
    reports/       reports, figures, tables, and terminal output
    *.py           the questions
    gallery/       the pages of docs/gallery, made from models of the questions
    __main__.py    the list of programs, `python -m experiments`
"""
