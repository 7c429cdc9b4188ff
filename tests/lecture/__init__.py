"""The lecture's functions and layers, against Raschka (2024), chapter 3."""
