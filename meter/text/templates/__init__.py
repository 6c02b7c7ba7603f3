"""The texts of e-mails. A package so that the wheel carries them."""
