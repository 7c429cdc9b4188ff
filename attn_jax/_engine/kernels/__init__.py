"""One implementation a file, each with the functions of `dispatch.Kernel`."""
