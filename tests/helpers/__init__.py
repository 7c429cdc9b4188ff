"""What several test files share: oracles, comparisons, inputs and cases, with their tests."""
