"""How an attention call is computed: README.md draws its path and tells how to add a kernel."""
