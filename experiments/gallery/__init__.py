"""The viewer's gallery: a program that trains its networks, their stored arrays, and the pages."""
