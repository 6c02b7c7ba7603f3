"""E-mail: messages made, signed, sent; recipients; bounces."""
