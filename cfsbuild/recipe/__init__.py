"""From TOML text to a typed recipe with origins: `load` goes the whole way.

- text to marked data: `parse`, `lines` (on which line a key is), `include`, `marked`;
- which images: `variables`; templates: `rendering`, `template`, `sandbox` (jinja2), `bounded` (limits);
- marked data to types: `assemble`, `needs`, `validate`, `shapes`, `formats`;
- the types: `document`, `types`, `model`;
- what is wrong: `problems`; kinds by name: `kinds`; for editors and people: `schema`, `emit`.
"""
