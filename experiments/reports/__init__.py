"""Reports, figures, tables, and terminal output."""
