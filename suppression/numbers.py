"""What lists hold phone numbers to be: exactly what leads hold them to be. See `config.numbers`."""

from __future__ import annotations

from config.numbers import DEFAULT_REGION, MAX_TEXT, NANP_REGIONS, NumberError, is_region, normalise, to_e164

__all__ = ["DEFAULT_REGION", "MAX_TEXT", "NANP_REGIONS", "NumberError", "is_region", "normalise", "to_e164"]
