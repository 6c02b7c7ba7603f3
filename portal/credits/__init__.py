"""Credit requests over HTTP, and the page behind the link of a failed lead's e-mail."""
