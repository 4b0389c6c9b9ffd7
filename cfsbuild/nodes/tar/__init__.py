"""Reading tar archives as streams, hostile until proven good.

`stream` gives bytes, `header`, `pax`, `numbers`, `sparse` and `attributes` read their parts, `members` puts
members together; `selection` chooses, `contents` takes file contents in, `model` makes the tree; `faults` is
what can be wrong.
"""
