"""The tile engine: sums over pairs of rows, in linear memory, closed under differentiation."""
