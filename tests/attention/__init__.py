"""The public attention functions as a whole: numbers, gradients, options, errors, transforms."""
