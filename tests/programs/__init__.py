"""Programs that tests start, or that are started by hand or by make."""
