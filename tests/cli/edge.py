"""The recipe of the image that the tests of bundles mount; each adds its own target."""

IMAGE = """\
[image]
name = "edge"
version = "1"
epoch = 1000
[nodes.motd]
kind = "file"
target = "/motd"
content = "{{ 'x' * 100 }}"
"""
