"""The terms presets that ship with Baton: data, never code (domain, section 1).

One TOML file per preset, read by `book.terms.presets`. A buyer with prices of its own gets a `[[terms]]` entry whose
`base` names a preset.
"""
