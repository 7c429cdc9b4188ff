"""Everything that is shown or written: reports, figures, tables, and terminal output."""
