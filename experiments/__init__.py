"""Questions about attention, each a program: translate, grammar, length, lm, sort and generate.

A file imports from its own folder and from those that stand before it in this list:

    command_line/  options, presets, and errors in one line
    data/          texts and sentences, and the way from text to batches of ids
    systems/       the models that are compared
    training/      training runs: settings, updates, checkpoints, devices
    measures/      what is measured of a trained system
    reports/       everything that is shown or written
    *.py           the questions
    gallery/       the pages of docs/gallery, made from models of the questions
"""
