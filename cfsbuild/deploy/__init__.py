"""The machine that uses the image: `mount` goes the whole way from a `spec`.

`sequence` are the system calls of a mount in order, `syscalls` and `loop` make them, `namespace` runs a
command inside an image.
"""
