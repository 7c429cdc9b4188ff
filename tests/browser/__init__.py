"""The viewer's pages in a real browser."""
