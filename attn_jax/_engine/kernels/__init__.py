"""One contract, one implementation a file; implementations never import each other."""
